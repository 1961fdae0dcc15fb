//! What of a request is text: JSON, a query, an info-hash. It knows nothing of HTTP, so that it is
//! fuzzed without it.

use proto::ids::InfoHashV1;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

/// Why a text is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DecodeError {
    /// It is no JSON.
    Malformed(String),
    /// It does not say what it should: the field at fault, if one is, and how.
    Invalid(Option<String>, String),
}

/// Reads an info-hash: 40 hex digits.
pub(super) fn info_hash(text: &str) -> Option<InfoHashV1> {
    InfoHashV1::from_hex(text)
}

/// Reads a query.
pub(super) fn query<T: DeserializeOwned>(text: &str) -> Result<T, DecodeError> {
    let parameters = form_urlencoded::parse(text.as_bytes());
    let deserializer = serde_urlencoded::Deserializer::new(parameters);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let field = at_fault(error.path(), &error.inner().to_string());
        let detail = format!("in the query, {field}: {}", error.inner());
        DecodeError::Invalid(Some(field), detail)
    })
}

/// Reads a JSON object.
pub(super) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let no_json =
        |error: &serde_json::Error| DecodeError::Malformed(format!("the body is no JSON: {error}"));
    // A list would be taken for the fields of an object in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        let read = serde_json::from_slice::<IgnoredAny>(bytes);
        return Err(match read {
            Ok(IgnoredAny) => {
                DecodeError::Invalid(None, "the body is JSON, but no object".to_owned())
            }
            Err(error) => no_json(&error),
        });
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        match inner.classify() {
            Category::Data => {
                let field = at_fault(error.path(), &inner.to_string());
                let detail = format!("{field}: {inner}");
                DecodeError::Invalid(Some(field), detail)
            }
            _ => no_json(inner),
        }
    })?;
    deserializer.end().map_err(|error| no_json(&error))?;
    Ok(read)
}

/// The field at fault, by the way to it and by what is said of it: of one that is missing, or is
/// there twice, the way is that to the object which it is of.
fn at_fault(way: &serde_path_to_error::Path, said: &str) -> String {
    let way = way.to_string();
    let named = ["missing field `", "duplicate field `"];
    let named = named.iter().find_map(|start| said.strip_prefix(start));
    let named = named.and_then(|rest| rest.split('`').next());
    match (way.as_str(), named) {
        (".", Some(named)) => named.to_owned(),
        (_, Some(named)) => format!("{way}.{named}"),
        // One whose name is empty is told as the whole.
        ("", None) => ".".to_owned(),
        (_, None) => way,
    }
}
