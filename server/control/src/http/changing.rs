//! What can be changed of an HTTP port that is open: the names by which it may be asked, and what
//! makes its connections TLS. Those that are open go on as they began.
//!
//! Does not: move the port or the socket, or change how many connections they have.

use super::ListenError;
use super::doors::{self, Tls};
use super::host::Hosts;
use crate::config::Api;
use std::sync::{Arc, PoisonError, RwLock};

/// What a configuration says of it, with its files read.
pub struct Renewal {
    hosts: Arc<Hosts>,
    tls: Option<Tls>,
}

impl Renewal {
    /// Reads the files of certificates and of the key, if there are any.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub fn read(api: &Api) -> Result<Renewal, ListenError> {
        Ok(Renewal {
            hosts: Arc::new(Hosts::new(&api.allowed_hosts)),
            tls: doors::tls(api)?,
        })
    }
}

/// See the module.
pub struct Changeable(RwLock<Renewal>);

impl std::fmt::Debug for Changeable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changeable")
    }
}

impl Changeable {
    pub(super) fn new(first: Renewal) -> Changeable {
        Changeable(RwLock::new(first))
    }

    /// Takes this for requests and connections that come from now on.
    pub fn set(&self, renewal: Renewal) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = renewal;
    }

    pub(super) fn hosts(&self) -> Arc<Hosts> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&now.hosts)
    }

    pub(super) fn tls(&self) -> Option<Tls> {
        let now = self.0.read().unwrap_or_else(PoisonError::into_inner);
        now.tls.clone()
    }
}
