//! Names that come from packets, pods and files are other people's text: they must not move the cursor, end a line or
//! turn the reading direction.

use std::{borrow::Cow, fmt::Write as _};

/// The text on one line, with everything escaped that a terminal acts upon or does not show.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Control characters, line and paragraph separators, and what is invisible or turns the reading direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// For XML 1.0 text and attribute values. What XML cannot hold at all (most control characters) is escaped as above.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            c if is_unsafe(c) || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// For prose in Markdown: nothing in it starts markup, a table cell or a mention. A word with an @ is put between
/// backticks: GitHub takes `@name` for a mention even where it is written as an entity, and in code it does not.
#[must_use]
pub fn markdown(text: &str) -> String {
    let words: Vec<String> = line(text).split(' ').map(word).collect();
    words.join(" ")
}

fn word(word: &str) -> String {
    // Backticks would end the code, and a table takes a bar for its own even there.
    if word.contains('@') && !word.contains(['`', '|']) {
        return format!("`{word}`");
    }
    let mut safe = String::with_capacity(word.len() + 8);
    for c in word.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '|' | '[' | ']' | '~' => {
                safe.push('\\');
                safe.push(c);
            }
            '@' => {
                let _ = write!(safe, "&#{};", u32::from('@'));
            }
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["example.com", "10.244.1.132:41334 → 169.254.116.108:53", "11 µs", "bücher.example"] {
            assert!(matches!(line(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn terminal_sequences_line_ends_and_direction_marks_are_shown_not_obeyed() {
        assert_eq!(line("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(line("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(line("a\u{202e}b\u{2028}c\u{9b}31m"), "a\\u{202e}b\\u{2028}c\\u{9b}31m");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_one_harmless_line(text in proptest::string::string_regex("(?s).{0,60}").expect("a pattern")) {
            assert!(!line(&text).chars().any(is_unsafe));
            assert!(!xml(&text).contains(['<', '>', '"', '\n', '\u{0}', '\u{1b}', '\u{fffe}', '\u{ffff}']));
            assert!(!markdown(&text).contains('\n'));
            let outside_of_code: String = markdown(&text).replace("\\`", "").split('`').step_by(2).collect();
            assert!(!outside_of_code.contains(['<', '@']), "{outside_of_code}");
        }
    }

    #[test]
    fn xml_and_markdown_stay_themselves() {
        assert_eq!(xml("<a b=\"1\">&\u{1b}\n"), "&lt;a b=&quot;1&quot;&gt;&amp;\\u{1b}&#10;");
        assert_eq!(markdown("a|b`c`<img>@all"), "a\\|b\\`c\\`&lt;img>&#64;all");
        assert_eq!(markdown("--patch @lo.yaml, a@b *"), "--patch `@lo.yaml,` `a@b` \\*");
    }
}
