//! Lines of a terminal page: wrapped at its width, coloured where that is wanted, and safe to print. All text goes
//! through [`Page::line`], which escapes it; only styles add bytes of their own.

use anstyle::{AnsiColor, Style};

use crate::report::escape;

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default().bold();

/// Text with its style.
pub(crate) type Span<'a> = (Style, &'a str);

#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) width: usize,
    color: bool,
    lines: Vec<String>,
}

impl Page {
    pub(crate) const fn new(width: usize, color: bool) -> Self {
        Self { width, color, lines: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// One line, as it is.
    pub(crate) fn line(&mut self, spans: &[Span<'_>]) {
        let mut line = String::new();
        for (style, text) in spans {
            let text = escape::line(text);
            if self.color && *style != PLAIN && !text.trim().is_empty() {
                line.push_str(&format!("{style}{text}{style:#}"));
            } else {
                line.push_str(&text);
            }
        }
        self.lines.push(line.trim_end().to_owned());
    }

    pub(crate) fn blank(&mut self) {
        self.lines.push(String::new());
    }

    /// Prose behind a lead, wrapped; further lines are indented by the lead's width.
    pub(crate) fn prose(&mut self, lead: Span<'_>, text: &str) {
        self.prose_then(lead, text, None);
    }

    /// Prose whose further lines are two columns further in.
    pub(crate) fn hanging(&mut self, indent: usize, text: &str) {
        for (n, line) in wrap(&escape::line(text), self.width.saturating_sub(indent + 2)).iter().enumerate() {
            let indent = if n == 0 { indent } else { indent + 2 };
            self.line(&[(PLAIN, &" ".repeat(indent)), (PLAIN, line)]);
        }
    }

    /// The same as [`Self::prose`], and something at the end of the last line, or of a line of its own where it does not fit there.
    pub(crate) fn prose_then(&mut self, lead: Span<'_>, text: &str, tail: Option<Span<'_>>) {
        let indent = columns(lead.1);
        let lines = wrap(&escape::line(text), self.width.saturating_sub(indent));
        let last = lines.len().saturating_sub(1);
        let blank = " ".repeat(indent);
        for (n, line) in lines.iter().enumerate() {
            let lead = if n == 0 { lead } else { (PLAIN, blank.as_str()) };
            match tail {
                Some(tail) if n == last => {
                    let used = indent + columns(line);
                    match self.width.checked_sub(used + columns(tail.1)) {
                        Some(gap @ 2..) => self.line(&[lead, (PLAIN, line), (PLAIN, &" ".repeat(gap)), tail]),
                        _ => {
                            self.line(&[lead, (PLAIN, line)]);
                            self.line(&[(PLAIN, &blank), tail]);
                        }
                    }
                }
                _ => self.line(&[lead, (PLAIN, line)]),
            }
        }
    }
}

/// Width on a terminal; what is wider or narrower than one column is escaped or rare.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().count()
}

/// The text padded with blanks to a width.
pub(crate) fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

/// Breaks at blanks; a word that is longer than a line is cut. At least one line, however empty.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(10);
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = lines.last().map_or(0, |line| columns(line));
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= width {
                if let Some(line) = lines.last_mut() {
                    line.extend((gap > 0).then_some(' '));
                    line.extend(word);
                }
                break;
            }
            if used > 0 {
                lines.push(String::new());
            } else {
                let rest = word.split_off(width);
                if let Some(line) = lines.last_mut() {
                    line.extend(word);
                }
                word = rest;
                lines.push(String::new());
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_wrap_and_long_ones_are_cut() {
        assert_eq!(wrap("one two  three", 10), ["one two", "three"]);
        assert_eq!(wrap("abcdefghijklmnopqrstuvwxyz ok", 12), ["abcdefghijkl", "mnopqrstuvwx", "yz ok"]);
        assert_eq!(wrap("", 10), [""]);
    }

    proptest::proptest! {
        #[test]
        fn wrapping_loses_nothing_and_fits(text in "\\PC{0,200}", width in 10_usize..120) {
            let lines = wrap(&text, width);
            assert!(lines.iter().all(|line| columns(line) <= width), "{lines:?}");
            let letters = |text: &str| text.chars().filter(|c| *c != ' ').collect::<String>();
            assert_eq!(letters(&lines.concat()), letters(&text));
        }
    }

    #[test]
    fn no_line_is_wider_than_the_page() {
        let mut page = Page::new(40, false);
        let text = "Their queries leave the node through eth0, masqueraded as 192.168.77.2, and nobody answers.";
        page.prose_then((BAD, "FAIL  "), text, Some((DIM, "HDP201 unknown-address-leaks")));
        assert!(page.text().lines().all(|line| columns(line) <= 40), "{}", page.text());
        assert!(page.text().contains("\n      HDP201"), "{}", page.text());
    }

    #[test]
    fn a_hanging_paragraph_fits_and_hangs() {
        let mut page = Page::new(40, false);
        page.hanging(4, "queries from pods to 169.254.116.108:53 over udp: 3/3 answered");
        assert_eq!(page.text(), "    queries from pods to\n      169.254.116.108:53 over udp: 3/3\n      answered\n");
    }

    #[test]
    fn colours_wrap_the_text_and_the_text_brings_none() {
        let mut page = Page::new(80, true);
        page.line(&[(BAD, "FAIL"), (PLAIN, " \x1b[2J")]);
        assert_eq!(page.text(), format!("{BAD}FAIL{BAD:#} \\u{{1b}}[2J\n"));
    }
}
