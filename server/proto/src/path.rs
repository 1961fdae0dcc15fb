//! File names from strangers: sanitised to something that stays inside the root and is safe to
//! show.
//!
//! Pure functions of one path component. What collides after sanitising is renamed apart where a
//! whole torrent is known (`metainfo`). Nothing here touches a file system, and nothing knows of
//! symbolic links that already lie on disk: opening beneath the root is the storage layer's
//! promise.

use std::borrow::Cow;

use crate::limits::PATH_COMPONENT_BYTES_MAX;

/// The longest extension that shortening and renaming keep, with its dot.
const EXTENSION_BYTES_MAX: usize = 16;

/// One path component made safe, or `None` if nothing of it remains (it is empty or `.`).
///
/// * Bytes that are not UTF-8 become U+FFFD.
/// * `/`, NUL, control characters, line separators and characters that change the direction of
///   writing become `_`: they cannot stand in a name, or make it look like another.
/// * `..` becomes `__`.
/// * More than 255 bytes are shortened; the extension stays.
///
/// The result is not empty, not `.` or `..`, has no `/` and no NUL, and takes at most 255 bytes.
/// Sanitising it again changes nothing.
#[must_use]
pub fn sanitise_component(raw: &[u8]) -> Option<Cow<'_, str>> {
    let text = String::from_utf8_lossy(raw);
    let name = match text.as_ref() {
        "" | "." => return None,
        ".." => Cow::Borrowed("__"),
        _ if text.contains(is_unsafe) => Cow::Owned(text.replace(is_unsafe, "_")),
        _ => text,
    };
    if name.len() <= PATH_COMPONENT_BYTES_MAX {
        return Some(name);
    }
    Some(Cow::Owned(with_suffix(&name, "")))
}

/// Whether Linux can hold a file of exactly this name, however ugly: then data that lies on disk
/// already may be found under it. For opening what exists, never for creating.
#[must_use]
pub fn is_literal_component(raw: &[u8]) -> bool {
    !matches!(raw, b"" | b"." | b"..")
        && raw.len() <= PATH_COMPONENT_BYTES_MAX
        && !raw.iter().any(|&byte| byte == b'/' || byte == 0)
}

/// `name` with `suffix` before its extension, the stem shortened so that the whole takes at most
/// 255 bytes.
///
/// `suffix` must be short: it is never cut.
#[must_use]
pub fn with_suffix(name: &str, suffix: &str) -> String {
    let (stem, extension) = split_extension(name);
    let room = PATH_COMPONENT_BYTES_MAX.saturating_sub(suffix.len() + extension.len());
    let stem = &stem[..floor_char_boundary(stem, room)];
    format!("{stem}{suffix}{extension}")
}

/// The form under which names are compared that a case-insensitive file system may take for one.
#[must_use]
pub fn fold_case(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Upper case first, so that `ß` and `SS`, or the two small sigmas, meet.
    name.to_uppercase().to_lowercase()
}

/// The stem and the extension with its dot; the extension is empty if it is missing, long or all
/// there is.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= EXTENSION_BYTES_MAX => name.split_at(at),
        _ => (name, ""),
    }
}

/// The largest index up to `at` on which `text` can be cut.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at)
        .rev()
        .find(|&index| text.is_char_boundary(index))
        .unwrap_or(0)
}

fn is_unsafe(character: char) -> bool {
    character == '/'
        || character.is_control()
        || matches!(character,
            // Marks, embeddings, overrides and isolates of the bidirectional algorithm.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sanitised(raw: &[u8]) -> String {
        sanitise_component(raw)
            .map(Cow::into_owned)
            .unwrap_or_default()
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "a",
            "file.txt",
            "Ünï 文件",
            "...",
            "a..b",
            " spaced ",
            "-x",
            "a\\b",
            "~",
        ] {
            assert!(
                matches!(sanitise_component(name.as_bytes()), Some(Cow::Borrowed(n)) if n == name)
            );
        }
    }

    #[test]
    fn hostile_names_are_defused() {
        let cases: &[(&[u8], &str)] = &[
            (b"", ""),
            (b".", ""),
            (b"..", "__"),
            (b"/", "_"),
            (b"../../etc/passwd", ".._.._etc_passwd"),
            (b"a\0b\x1b[2J\x7f\n", "a_b_[2J__"),
            ("a\u{202e}gpj.exe\u{85}".as_bytes(), "a_gpj.exe_"),
            (b"caf\xe9.txt", "caf\u{fffd}.txt"),
            (b"\xc0\xae\xc0\xae", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (raw, expected) in cases {
            assert_eq!(sanitised(raw), *expected, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn long_names_keep_their_extension_and_whole_characters() {
        let long = format!("{}.mkv", "ä".repeat(200));
        let short = sanitised(long.as_bytes());
        assert!(short.len() <= 255 && short.len() >= 253, "{}", short.len());
        assert!(short.ends_with("ä.mkv"));
        assert_eq!(sanitised(&[b'x'; 256]).len(), 255);
        assert_eq!(sanitised(&[b'x'; 255]).len(), 255);
        // Each byte becomes three: the limit holds for the result.
        assert_eq!(sanitised(&[0xff; 255]).len(), 255);
    }

    #[test]
    fn a_suffix_goes_before_the_extension() {
        assert_eq!(with_suffix("a.txt", "~1"), "a~1.txt");
        assert_eq!(with_suffix(".profile", "~1"), ".profile~1");
        assert_eq!(with_suffix("noext", "~1"), "noext~1");
        assert_eq!(
            with_suffix("a.b c d e f g h i j k", "~1"),
            "a.b c d e f g h i j k~1"
        );
        assert_eq!(with_suffix(&"x".repeat(255), "~12").len(), 255);
    }

    #[test]
    fn case_folds_for_comparison() {
        assert_eq!(fold_case("ReadMe"), fold_case("README"));
        assert_eq!(fold_case("straße"), fold_case("STRASSE"));
        assert_eq!(fold_case("σς"), fold_case("ΣΣ"));
        assert_ne!(fold_case("a"), fold_case("b"));
    }

    #[test]
    fn literal_names_are_those_that_linux_can_hold() {
        assert!(is_literal_component(b"a\xff\n"));
        for raw in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(!is_literal_component(raw));
        }
    }

    proptest! {
        #[test]
        fn the_result_is_safe_and_stable(raw in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(name) = sanitise_component(&raw) {
                prop_assert!(is_literal_component(name.as_bytes()));
                prop_assert!(!name.contains(is_unsafe));
                let again = sanitise_component(name.as_bytes());
                prop_assert_eq!(again.as_deref(), Some(name.as_ref()));
                let renamed = with_suffix(&name, "~1234567");
                prop_assert!(is_literal_component(renamed.as_bytes()));
            } else {
                prop_assert!(raw.is_empty() || raw == b".");
            }
        }
    }
}
