//! Reading typed values out of bencode, with errors that name field and offset.

use super::error::{MetainfoError, Reason};
use crate::bencode::{Dict, Kind, List, Value};

pub(super) type Result<T> = std::result::Result<T, MetainfoError>;

/// An error at `value`.
pub(super) fn refuse<T>(
    field: impl Into<String>,
    value: Value<'_, '_>,
    reason: Reason,
) -> Result<T> {
    Err(MetainfoError {
        field: field.into(),
        offset: value.offset(),
        reason,
    })
}

/// The value if the key exists; otherwise an error that names the dictionary's offset.
pub(super) fn required<'doc, 'input>(
    field: &str,
    value: Option<Value<'doc, 'input>>,
    dict: Value<'_, '_>,
) -> Result<Value<'doc, 'input>> {
    value.map_or_else(|| refuse(field, dict, Reason::Missing), Ok)
}

fn wrong_kind<T>(field: &str, value: Value<'_, '_>, expected: Kind) -> Result<T> {
    refuse(
        field,
        value,
        Reason::WrongKind {
            found: value.kind(),
            expected,
        },
    )
}

pub(super) fn dict<'doc, 'input>(
    field: &str,
    value: Value<'doc, 'input>,
) -> Result<Dict<'doc, 'input>> {
    value
        .dict()
        .map_or_else(|| wrong_kind(field, value, Kind::Dict), Ok)
}

pub(super) fn list<'doc, 'input>(
    field: &str,
    value: Value<'doc, 'input>,
) -> Result<List<'doc, 'input>> {
    value
        .list()
        .map_or_else(|| wrong_kind(field, value, Kind::List), Ok)
}

pub(super) fn bytes<'input>(field: &str, value: Value<'_, 'input>) -> Result<&'input [u8]> {
    value
        .as_bytes()
        .map_or_else(|| wrong_kind(field, value, Kind::Bytes), Ok)
}

/// An integer from `min` to `max`.
pub(super) fn integer(field: &str, value: Value<'_, '_>, min: u64, max: u64) -> Result<u64> {
    if value.kind() != Kind::Integer {
        return wrong_kind(field, value, Kind::Integer);
    }
    match value.as_unsigned() {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => refuse(field, value, Reason::OutOfRange { min, max }),
    }
}

/// A text that only people read: lossy, and absent rather than an error if it is no string.
pub(super) fn text(value: Option<Value<'_, '_>>) -> Option<String> {
    Some(String::from_utf8_lossy(value?.as_bytes()?).into_owned())
}
