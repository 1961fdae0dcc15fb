//! Where peers come in: the listeners of all shards, and the interface that they are bound to.
//!
//! With `peers.bind_interface` peers are met by that interface or not at all: while it is not
//! there nobody is listened to and nobody is called ([`sockets::begin_connect`]), and when it goes
//! all connections are closed. One that comes back, as a VPN's does, is another one to the kernel;
//! so [`watch`] looks every [`PERIOD`], and has the shards listen again then, at the same port.
//!
//! Limits: one listener for each address and shard, and those that were closed until their accept
//! has ended. Does not: bind anything but peers' connections (see `control`).

use crate::closing::CloseReason;
use crate::plane::{Command, Event};
use crate::shard::Shard;
use crate::sockets::{self, SocketOptions};
use crate::system;
use seedring_metrics::Counter;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often it is looked whether the interface is there.
const PERIOD: Duration = Duration::from_secs(1);

/// How long accepting rests when no descriptor is left.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// The listeners of all shards.
pub(crate) struct Opened {
    /// Those of each address, one for each shard; none while the interface is not there.
    groups: Vec<Vec<TcpListener>>,
    /// Where peers connect.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The kernel's number of the interface that they are bound to.
    interface: Option<u32>,
}

/// Opens the listeners of `shards` shards, or draws a port for when they can be.
///
/// # Errors
///
/// What the kernel said, with the address; not that the interface, or an address on it, is not
/// there.
pub(crate) fn open(
    listen: &[SocketAddr],
    shards: usize,
    options: &SocketOptions,
) -> Result<Opened, (SocketAddr, io::Error)> {
    let interface = options.interface.as_deref();
    let index = interface.and_then(system::interface_index);
    let opened = match (interface, index) {
        (Some(_), None) => None,
        _ => match sockets::listen_all(listen, shards, options) {
            Ok(groups) => Some(groups),
            Err((_, error)) if interface.is_some() && is_awaited(&error) => None,
            Err(refused) => return Err(refused),
        },
    };
    if let Some(groups) = opened {
        let address = |group: &Vec<TcpListener>| group.first()?.local_addr().ok();
        return Ok(Opened {
            addresses: groups.iter().filter_map(address).collect(),
            groups,
            interface: index,
        });
    }
    tracing::warn!(
        interface,
        "the interface for peers, or our address on it, is not there: no peer is met until it is"
    );
    Ok(Opened {
        groups: Vec::new(),
        addresses: with_port(listen)?,
        interface: None,
    })
}

impl Opened {
    /// Takes the listeners of one shard.
    pub(crate) fn take(&mut self) -> Vec<TcpListener> {
        self.groups.iter_mut().filter_map(Vec::pop).collect()
    }

    /// What [`watch`] is to look after.
    pub(crate) fn watched(
        &self,
        options: &SocketOptions,
        shards: Vec<mpsc::WeakSender<Command>>,
        events: &mpsc::UnboundedSender<Event>,
    ) -> Watched {
        if self.interface.is_none() {
            let _ = events.send(Event::Interface(false));
        }
        Watched {
            events: events.downgrade(),
            addresses: self.addresses.clone(),
            options: options.clone(),
            shards,
            interface: self.interface,
            is_told: self.interface.is_none(),
        }
    }
}

/// Whether this is what comes while an interface is being set up.
fn is_awaited(error: &io::Error) -> bool {
    sockets::is_interface_gone(error) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// The addresses with a port that is free now, where any is wanted.
fn with_port(listen: &[SocketAddr]) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut drawn = None;
    let mut addresses = listen.to_vec();
    for address in addresses.iter_mut().filter(|address| address.port() == 0) {
        let port = match drawn {
            Some(port) => port,
            // Nobody listens to it: it is closed before anything could come.
            None => TcpListener::bind(any)
                .and_then(|socket| socket.local_addr())
                .map_err(|error| (*address, error))?
                .port(),
        };
        drawn = Some(port);
        address.set_port(port);
    }
    Ok(addresses)
}

/// What is needed to listen again.
pub(crate) struct Watched {
    addresses: Vec<SocketAddr>,
    options: SocketOptions,
    shards: Vec<mpsc::WeakSender<Command>>,
    /// Must not keep the events from ending with the shards.
    events: mpsc::WeakUnboundedSender<Event>,
    /// The interface that the shards listen on, if they do.
    interface: Option<u32>,
    /// The log says that nobody is met.
    is_told: bool,
}

/// Has the shards listen on the interface whenever it is there, until they end.
pub(crate) async fn watch(mut doors: Watched) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if doors.look().await.is_err() {
            return;
        }
    }
}

impl Watched {
    /// Looks once whether the interface is what it was. An error: the shards have ended.
    async fn look(&mut self) -> Result<(), ()> {
        let interface = self.options.interface.as_deref();
        let index = interface.and_then(system::interface_index);
        if index == self.interface {
            return self.shards.iter().try_for_each(|shard| {
                // What holds the way in holds it no longer than it takes to look.
                shard.upgrade().map(drop).ok_or(())
            });
        }
        if self.interface.take().is_some() {
            tracing::warn!(
                interface,
                "the interface for peers is gone: no peer is met until it is back"
            );
            self.is_told = true;
            self.tell(Vec::new()).await?;
            self.publish(false);
        }
        if index.is_none() {
            return Ok(());
        }
        match sockets::listen_all(&self.addresses, self.shards.len(), &self.options) {
            Ok(groups) => {
                self.tell(groups).await?;
                self.interface = index;
                self.is_told = false;
                self.publish(true);
                tracing::warn!(interface, "the interface for peers is there: they are met");
            }
            Err((address, error)) if !self.is_told => {
                self.is_told = true;
                tracing::warn!(
                    interface, %address, %error,
                    "no peer is met: nothing can listen there; it is tried again until it can"
                );
            }
            Err((address, error)) => tracing::debug!(%address, %error, "cannot listen yet"),
        }
        Ok(())
    }

    fn publish(&self, is_there: bool) {
        if let Some(events) = self.events.upgrade() {
            let _ = events.send(Event::Interface(is_there));
        }
    }

    /// Gives the shards other listeners in place of those that they have.
    async fn tell(&self, mut groups: Vec<Vec<TcpListener>>) -> Result<(), ()> {
        for shard in &self.shards {
            let listeners = groups.iter_mut().filter_map(Vec::pop).collect();
            let shard = shard.upgrade().ok_or(())?;
            let command = Command::Listen(listeners);
            shard.send(command).await.map_err(drop)?;
        }
        Ok(())
    }
}

/// The listeners of one shard.
#[derive(Default)]
pub(crate) struct Doors {
    open: RefCell<Vec<(Rc<Door>, JoinHandle<()>)>>,
    /// What they are bound to is not there.
    are_gone: Cell<bool>,
}

/// One of them.
struct Door {
    listener: tokio_uring::net::TcpListener,
    is_closed: Cell<bool>,
}

impl Shard {
    /// Accepts connections by these listeners and no others.
    pub(crate) fn listen(self: &Rc<Self>, listeners: Vec<TcpListener>) {
        self.close_doors();
        let is_bound = self.config.sockets.interface.is_some() && !self.config.listen.is_empty();
        self.doors.are_gone.set(is_bound && listeners.is_empty());
        let mut doors = self.doors.open.borrow_mut();
        doors.retain(|(_, accepting)| !accepting.is_finished());
        for listener in listeners {
            let door = Rc::new(Door {
                listener: tokio_uring::net::TcpListener::from_std(listener),
                is_closed: Cell::new(false),
            });
            let accepting = tokio_uring::spawn(Rc::clone(self).accept(Rc::clone(&door)));
            doors.push((door, accepting));
        }
    }

    /// Does the same after the interface has changed. Without listeners it is gone, and connections
    /// by it are dead: left alone, they would only fall silent.
    pub(crate) fn listen_elsewhere(self: &Rc<Self>, listeners: Vec<TcpListener>) {
        if listeners.is_empty() {
            for (_, connection) in self.connections.borrow().iter() {
                connection.abort(CloseReason::Reset);
            }
            for (_, (socket, _)) in self.sockets.borrow().iter() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.listen(listeners);
    }

    /// Whether the interface that peers are met by is not there, so that nobody need be called.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.doors.are_gone.get()
    }

    /// Accepts no more; completes the accepts that are in flight.
    pub(crate) fn close_doors(&self) {
        for (door, _) in self.doors.open.borrow().iter() {
            door.is_closed.set(true);
            sockets::shut_down(&door.listener);
        }
    }

    /// Waits until nothing is accepted any more.
    pub(crate) async fn doors_closed(&self) {
        let doors = self.doors.open.take();
        for (_, accepting) in doors {
            let _ = accepting.await;
        }
    }

    /// Accepts connections until the door is closed.
    async fn accept(self: Rc<Self>, door: Rc<Door>) {
        loop {
            let accepted = door.listener.accept().await;
            if door.is_closed.get() {
                return;
            }
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    /// Rests when the process has no descriptor left; anything else concerns one connection only.
    async fn accept_failed(&self, error: &io::Error) {
        if matches!(
            error.raw_os_error(),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
        ) {
            self.cells.increment(Counter::AcceptErrorDescriptors);
            tracing::warn!(%error, "cannot accept connections; raise LimitNOFILE (ulimit -n)");
            tokio::time::sleep(ACCEPT_REST).await;
        } else {
            self.cells.increment(Counter::AcceptErrorOther);
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(interface: &str) -> SocketOptions {
        SocketOptions {
            backlog: 16,
            congestion_control: String::new(),
            interface: Some(interface.to_owned()),
        }
    }

    /// Bound to what is not there, nothing is opened, and the port is known all the same.
    #[test]
    fn an_interface_that_is_not_there_is_waited_for() {
        let listen: Vec<SocketAddr> = vec!["0.0.0.0:0".parse().unwrap(), "[::]:0".parse().unwrap()];
        let mut opened = open(&listen, 2, &options("absent0")).unwrap();
        let ports: Vec<u16> = opened.addresses.iter().map(SocketAddr::port).collect();
        assert!(ports[0] != 0 && ports == [ports[0]; 2], "{ports:?}");
        assert!(opened.take().is_empty() && opened.interface.is_none());
        // It is nobody's.
        drop(TcpListener::bind(opened.addresses[0]).unwrap());
        let error = sockets::begin_connect(opened.addresses[0], &options("absent0"));
        assert!(sockets::is_interface_gone(&error.unwrap_err()));
    }

    #[test]
    fn an_interface_that_is_there_is_listened_on() {
        let listen = ["127.0.0.1:0".parse().unwrap()];
        let mut opened = open(&listen, 2, &options("lo")).unwrap();
        assert!(opened.interface.is_some() && opened.addresses[0].port() != 0);
        assert_eq!((opened.take().len(), opened.take().len()), (1, 1));
        // A port that is taken is an error, whatever it is bound to.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let refused = open(&[taken.local_addr().unwrap()], 1, &options("lo"));
        let kind = refused.map(|_| ()).unwrap_err().1.kind();
        assert_eq!(kind, io::ErrorKind::AddrInUse);
    }
}
