//! A stranger's text made fit for a log line, an error or a screen. Not here: file names, see
//! [`crate::path`].

/// At most `chars_max` printable characters of `bytes`.
///
/// Control, format and bidirectional characters, and bytes that are not UTF-8, are escaped; a
/// longer text ends in `…`. Applying it twice changes nothing more.
pub fn printable(bytes: &[u8], chars_max: usize) -> String {
    let mut text = String::new();
    let mut chars = 0;
    for chunk in bytes.utf8_chunks() {
        let escaped_chars = chunk.valid().chars().flat_map(escape);
        let escaped_bytes = chunk.invalid().iter().flat_map(|&byte| {
            let escaped = std::ascii::escape_default(byte);
            escaped.map(char::from)
        });
        for char in escaped_chars.chain(escaped_bytes) {
            if chars == chars_max {
                // The last character makes room for the mark.
                text.pop();
                text.push('…');
                return text;
            }
            text.push(char);
            chars += 1;
        }
    }
    text
}

/// The character itself where it is harmless, else its escape.
fn escape(char: char) -> impl Iterator<Item = char> {
    let harmless = matches!(char, '"' | '\'' | '\\');
    let escaped = (!harmless).then(|| char.escape_debug());
    harmless
        .then_some(char)
        .into_iter()
        .chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn harmful_characters_are_escaped() {
        assert_eq!(
            printable(b"qBittorrent/4.5.2 \"x\" \\ 'y'", 99),
            "qBittorrent/4.5.2 \"x\" \\ 'y'"
        );
        assert_eq!(printable("µTorrent 日本".as_bytes(), 99), "µTorrent 日本");
        assert_eq!(printable(b"a\x1b[31m\r\nb\0", 99), "a\\u{1b}[31m\\r\\nb\\0");
        assert_eq!(
            printable("a\u{202e}b\u{200b}c".as_bytes(), 99),
            "a\\u{202e}b\\u{200b}c"
        );
        assert_eq!(printable(b"a\xff\xc3", 99), "a\\xff\\xc3");
    }

    #[test]
    fn long_text_is_cut_with_a_mark() {
        assert_eq!(printable(b"abcdef", 6), "abcdef");
        assert_eq!(printable(b"abcdefg", 6), "abcde…");
        assert_eq!(printable(&vec![b'x'; 1 << 20], 3), "xx…");
        assert_eq!(printable(b"\n\n", 3), "\\n…");
        assert_eq!(printable(b"", 0), "");
    }

    proptest! {
        #[test]
        fn output_is_bounded_printable_and_stable(
            bytes in vec(any::<u8>(), 0..80), max in 1usize..60,
        ) {
            let text = printable(&bytes, max);
            prop_assert!(text.chars().count() <= max);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(printable(text.as_bytes(), max), text);
        }
    }
}
