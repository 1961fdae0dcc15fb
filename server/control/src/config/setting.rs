//! How the value of a key is read, checked and printed, one implementation a type.

use super::rules::{CategoryPath, NamedLimits, ScheduledLimits};
use super::table::WrongEntry;
use super::units::{self, ByteRate, ByteSize, Seconds};
use crate::tracker::LabelledNetwork;
use proto::magnet::PeerAddress;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use toml::de::DeValue;

/// What the user wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    /// A value of a TOML file.
    Toml(&'a DeValue<'a>),
    /// The text of an environment variable.
    Text(&'a str),
}

impl<'a> Input<'a> {
    pub(crate) fn string(self) -> Option<&'a str> {
        match self {
            Input::Toml(value) => value.as_str(),
            Input::Text(text) => Some(text),
        }
    }

    fn integer(self) -> Option<u64> {
        match self {
            Input::Toml(value) => {
                let integer = value.as_integer()?;
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            Input::Text(text) => text.trim().parse().ok(),
        }
    }

    fn boolean(self) -> Option<bool> {
        match self {
            Input::Toml(value) => value.as_bool(),
            Input::Text(text) => text.trim().parse().ok(),
        }
    }

    pub(crate) fn strings(self) -> Option<Vec<&'a str>> {
        match self {
            Input::Toml(value) => value
                .as_array()?
                .iter()
                .map(|item| item.get_ref().as_str())
                .collect(),
            Input::Text(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .collect(),
            ),
        }
    }
}

impl Input<'_> {
    /// The first entry of a list that is no string, or not one that is allowed.
    pub(crate) fn wrong_entry(self, is_allowed: impl Fn(&str) -> bool) -> Option<WrongEntry> {
        let wrong = |index: usize, text: Option<&str>| WrongEntry {
            number: index + 1,
            text: text.map(str::to_owned),
        };
        if let Input::Toml(value) = self {
            let entries = value.as_array()?.iter().enumerate();
            let mut texts = entries.map(|(index, entry)| (index, entry.get_ref().as_str()));
            let found = texts.find(|(_, text)| !text.is_some_and(&is_allowed));
            return found.map(|(index, text)| wrong(index, text));
        }
        let mut texts = self.strings()?.into_iter().enumerate();
        let found = texts.find(|(_, text)| !is_allowed(text));
        found.map(|(index, text)| wrong(index, Some(text)))
    }
}

/// The smallest and the largest number allowed; types that are no numbers ignore it.
pub(crate) type Bounds = RangeInclusive<u64>;

/// The type of a key.
pub(crate) trait Setting: Sized {
    /// The value, or nothing if what the user wrote is not allowed.
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self>;
    /// The value as TOML.
    fn render(&self) -> String;
    /// What is allowed, in words.
    fn allowed(bounds: &Bounds) -> String;
    /// Whether what the user wrote must not be shown.
    const IS_SECRET: bool = false;
    /// Of a list that is not allowed, the entry that is at fault, if one is.
    fn wrong_entry(_input: Input<'_>) -> Option<WrongEntry> {
        None
    }
}

fn within(number: u64, bounds: &Bounds) -> Option<u64> {
    bounds.contains(&number).then_some(number)
}

impl Setting for bool {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        input.boolean()
    }
    fn render(&self) -> String {
        self.to_string()
    }
    fn allowed(_bounds: &Bounds) -> String {
        "true or false".to_owned()
    }
}

macro_rules! integer_settings {
    ($($type:ty),+) => {
        $(impl Setting for $type {
            fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
                within(input.integer()?, bounds)?.try_into().ok()
            }
            fn render(&self) -> String {
                self.to_string()
            }
            fn allowed(bounds: &Bounds) -> String {
                let largest = (*bounds.end()).min(<$type>::MAX.into());
                format!("an integer from {} to {largest}", bounds.start())
            }
        })+
    };
}
integer_settings!(u16, u32);

impl Setting for Seconds {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        within(input.integer()?, bounds).map(Seconds)
    }
    fn render(&self) -> String {
        self.0.to_string()
    }
    fn allowed(bounds: &Bounds) -> String {
        format!("whole seconds from {} to {}", bounds.start(), bounds.end())
    }
}

impl Setting for ByteSize {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let bytes = input
            .integer()
            .or_else(|| units::parse_size(input.string()?))?;
        within(bytes, bounds).map(ByteSize)
    }
    fn render(&self) -> String {
        quote(&units::format_size(self.0))
    }
    fn allowed(bounds: &Bounds) -> String {
        let (smallest, largest) = (
            units::format_size(*bounds.start()),
            units::format_size(*bounds.end()),
        );
        format!("bytes, or a string with a unit (\"64MiB\", \"1GB\"), from {smallest} to {largest}")
    }
}

impl Setting for ByteRate {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let rate = input
            .integer()
            .or_else(|| units::parse_rate(input.string()?))?;
        within(rate, bounds).map(ByteRate)
    }
    fn render(&self) -> String {
        match self.0 {
            0 => "0".to_owned(),
            rate => quote(&format!("{}/s", units::format_size(rate))),
        }
    }
    fn allowed(bounds: &Bounds) -> String {
        let largest = units::format_size(*bounds.end());
        format!(
            "0 for no limit, bytes per second, or a string with a unit (\"10MB/s\", \"1Gbit/s\"), \
             at most {largest}/s"
        )
    }
}

/// Addresses: the empty string turns them off.
macro_rules! address_settings {
    ($($type:ty, $allowed:literal;)+) => {
        $(impl Setting for Option<$type> {
            fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
                match input.string()? {
                    "" => Some(None),
                    text => text.parse().ok().map(Some),
                }
            }
            fn render(&self) -> String {
                quote(&self.as_ref().map(ToString::to_string).unwrap_or_default())
            }
            fn allowed(_bounds: &Bounds) -> String {
                concat!($allowed, ", or \"\" for off").to_owned()
            }
        })+
    };
}
address_settings! {
    Ipv4Addr, "an IPv4 address such as \"0.0.0.0\"";
    Ipv6Addr, "an IPv6 address such as \"::\"";
    SocketAddr, "an address and port such as \"127.0.0.1:8690\" or \"[::1]:8690\"";
    SocketAddrV4, "an IPv4 address and port such as \"0.0.0.0:6969\"";
    SocketAddrV6, "an IPv6 address and port such as \"[::]:6969\"";
}

impl Setting for Option<PathBuf> {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        match input.string()? {
            "" => Some(None),
            text if text.contains('\0') => None,
            text => Some(Some(PathBuf::from(text))),
        }
    }
    fn render(&self) -> String {
        quote(
            &self
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default(),
        )
    }
    fn allowed(_bounds: &Bounds) -> String {
        "a path; a relative one starts at the folder of this file; \"\" for the default".to_owned()
    }
}

/// Text that ends up in a request, a log or a socket option: visible ASCII, at most `bounds.end()`
/// characters.
impl Setting for String {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let text = input.string()?;
        let visible = text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
        (visible && within(text.len() as u64, bounds).is_some()).then(|| text.to_owned())
    }
    fn render(&self) -> String {
        quote(self)
    }
    fn allowed(bounds: &Bounds) -> String {
        let (shortest, longest) = (bounds.start(), bounds.end());
        format!("a string of {shortest} to {longest} visible ASCII characters")
    }
}

/// The entries of a list, if they are not too many and each is allowed.
fn entries<'a>(
    input: Input<'a>,
    bounds: &Bounds,
    is_allowed: impl Fn(&str) -> bool,
) -> Option<Vec<&'a str>> {
    let entries = input.strings()?;
    let are_allowed = entries.iter().all(|text| is_allowed(text));
    (are_allowed && within(entries.len() as u64, bounds).is_some()).then_some(entries)
}

fn is_host(text: &str) -> bool {
    let is_in = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    (1..=255).contains(&text.len()) && text.chars().all(is_in)
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// What the kernel takes for an interface's name.
fn is_interface(text: &str) -> bool {
    let is_in = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let is_folder = text == "." || text == "..";
    (1..=15).contains(&text.len()) && text.chars().all(is_in) && !is_folder
}

fn is_node(text: &str) -> bool {
    text.len() <= 260 && text.parse::<PeerAddress>().is_ok()
}

/// A list of host names or addresses, at most `bounds.end()` of them.
impl Setting for Vec<String> {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let items = entries(input, bounds, is_host)?;
        Some(items.into_iter().map(str::to_ascii_lowercase).collect())
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(is_host)
    }
    fn render(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quote(item)).collect();
        format!("[{}]", items.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} host names, such as [\"seed.example.org\"]",
            bounds.end()
        )
    }
}

/// Files, at most `bounds.end()` of them.
impl Setting for Vec<PathBuf> {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let items = entries(input, bounds, is_path)?;
        Some(items.into_iter().map(PathBuf::from).collect())
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(is_path)
    }
    fn render(&self) -> String {
        let items: Vec<String> = self
            .iter()
            .map(|item| quote(&item.to_string_lossy()))
            .collect();
        format!("[{}]", items.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} paths; a relative one starts at the folder of this file",
            bounds.end()
        )
    }
}

/// Names of network interfaces, at most `bounds.end()` of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces(pub Vec<String>);

impl Setting for Interfaces {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let items = entries(input, bounds, is_interface)?;
        Some(Interfaces(items.into_iter().map(str::to_owned).collect()))
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(is_interface)
    }
    fn render(&self) -> String {
        let items: Vec<String> = self.0.iter().map(|item| quote(item)).collect();
        format!("[{}]", items.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} names of interfaces, such as [\"eth0\"]",
            bounds.end()
        )
    }
}

/// The name of a network interface; "" for any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// The name, if there is one.
    pub fn name(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl Setting for Interface {
    fn read(input: Input<'_>, _bounds: &Bounds) -> Option<Self> {
        let text = input.string()?;
        (text.is_empty() || is_interface(text)).then(|| Interface(text.to_owned()))
    }
    fn render(&self) -> String {
        quote(&self.0)
    }
    fn allowed(_bounds: &Bounds) -> String {
        "the name of an interface such as \"wg0\", or \"\" for any".to_owned()
    }
}

/// Where DHT nodes are, each "HOST:PORT", at most `bounds.end()` of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes(pub Vec<String>);

impl Setting for Nodes {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let items = entries(input, bounds, is_node)?;
        Some(Nodes(items.into_iter().map(str::to_owned).collect()))
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(is_node)
    }
    fn render(&self) -> String {
        let items: Vec<String> = self.0.iter().map(|item| quote(item)).collect();
        format!("[{}]", items.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} nodes, such as [\"dht.example.org:6881\", \"192.0.2.1:6881\"]",
            bounds.end()
        )
    }
}

/// A list of networks and the zones that they are in, at most `bounds.end()` of them.
impl Setting for Vec<LabelledNetwork> {
    fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
        let items = input.strings()?;
        within(items.len() as u64, bounds)?;
        items.into_iter().map(|item| item.parse().ok()).collect()
    }
    fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
        input.wrong_entry(|text| text.parse::<LabelledNetwork>().is_ok())
    }
    fn render(&self) -> String {
        let items: Vec<String> = self.iter().map(|item| quote(&item.to_string())).collect();
        format!("[{}]", items.join(", "))
    }
    fn allowed(bounds: &Bounds) -> String {
        format!(
            "a list of at most {} networks, each with its zone, such as [\"10.1.0.0/16=rack-1\"]",
            bounds.end()
        )
    }
}

/// Rules, a text each, at most `bounds.end()` of them.
macro_rules! rule_settings {
    ($($Rule:ty, $allowed:literal;)+) => {
        $(impl Setting for Vec<$Rule> {
            fn read(input: Input<'_>, bounds: &Bounds) -> Option<Self> {
                let items = input.strings()?;
                within(items.len() as u64, bounds)?;
                items.into_iter().map(|item| item.parse().ok()).collect()
            }
            fn wrong_entry(input: Input<'_>) -> Option<WrongEntry> {
                input.wrong_entry(|text| text.parse::<$Rule>().is_ok())
            }
            fn render(&self) -> String {
                let items: Vec<String> = self.iter().map(|item| quote(&item.to_string())).collect();
                format!("[{}]", items.join(", "))
            }
            fn allowed(bounds: &Bounds) -> String {
                format!(concat!("a list of at most {} rules, such as [", $allowed, "]"), bounds.end())
            }
        })+
    };
}
rule_settings! {
    NamedLimits, "\"linux: upload=1MB/s peers=50\", \"tv: ratio=2 seeding_time=14d at_limit=remove\"";
    CategoryPath, "\"tv: /srv/tv\", \"films: /srv/films\"";
    ScheduledLimits, "\"mon-fri 08:00-18:00 upload=2MB/s download=5MB/s\"";
}

/// A TOML string.
pub(crate) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Declares an enum whose variants the configuration writes as strings.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $Enum:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),+ $(,)? }
    )+) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $Enum { $( $(#[$variant_meta])* $variant ),+ }

            impl $Enum {
                /// As the configuration writes it.
                pub const fn as_str(self) -> &'static str {
                    match self { $( $Enum::$variant => $text ),+ }
                }
            }

            impl $crate::config::setting::Setting for $Enum {
                fn read(
                    input: $crate::config::setting::Input<'_>,
                    _bounds: &$crate::config::setting::Bounds,
                ) -> Option<Self> {
                    match input.string()? {
                        $( $text => Some($Enum::$variant), )+
                        _ => None,
                    }
                }
                fn render(&self) -> String {
                    $crate::config::setting::quote(self.as_str())
                }
                fn allowed(_bounds: &$crate::config::setting::Bounds) -> String {
                    let all = [$( concat!("\"", $text, "\"") ),+];
                    format!("one of {}", all.join(", "))
                }
            }
        )+
    };
}
pub(crate) use choices;
