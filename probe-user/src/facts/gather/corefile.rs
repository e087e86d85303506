//! Reading a Corefile far enough to say whereto it forwards (coredns man corefile(5), plugin/forward).

use std::collections::BTreeMap;

use crate::facts::Forward;

/// What a Corefile says of forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Every `forward`, its targets as written: addresses, `tls://...`, names of files.
    pub(super) forwards: Vec<Forward>,
    /// What stands in the way of being sure: imports that could not be followed, braces that do not match.
    pub(super) doubts: Vec<String>,
}

/// Where a Corefile's variables and imports come from.
pub(super) trait Surroundings {
    fn variable(&self, name: &str) -> Option<String>;
    /// The files that an import names, which may have a pattern in its last part.
    ///
    /// # Errors
    /// Why they cannot be read, as text.
    fn files(&self, import: &str) -> Result<Vec<String>, String>;
}

/// A word, and whether it is the first of its line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    first: bool,
    quoted: bool,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Imports may import.
const MAX_DEPTH: u8 = 8;

/// Parses a Corefile; a variable that is not known is empty, as for CoreDNS.
pub(super) fn parse(text: &str, around: &impl Surroundings) -> Parsed {
    let mut parsed = Parsed::default();
    read_blocks(text, around, &mut parsed, 0);
    parsed
}

fn read_blocks(text: &str, around: &impl Surroundings, parsed: &mut Parsed, depth: u8) {
    let tokens = tokens(text, &|name: &str| around.variable(name));
    let (open, close) = (tokens.iter().filter(|t| t.is("{")).count(), tokens.iter().filter(|t| t.is("}")).count());
    if open != close {
        parsed.doubts.push(format!(
            "its braces do not match ({open} open, {close} close); CoreDNS goes on with what it had before"
        ));
    }
    let blocks = blocks(&tokens);
    let snippets: Snippets<'_> = blocks.iter().filter_map(|block| Some((block.snippet()?, block.body))).collect();
    for block in blocks.iter().filter(|block| block.snippet().is_none()) {
        if block.keys.first().is_some_and(|key| key.is("import")) {
            for key in &block.keys[1..] {
                for file in imported(&key.text, around, parsed, depth) {
                    read_blocks(&file, around, parsed, depth + 1);
                }
            }
            continue;
        }
        let keys = block.keys.iter().map(|key| zone(&key.text)).filter(|zone| !zone.is_empty());
        let zones: Vec<String> = keys.collect();
        read_body(block.body, &zones.join(" "), &snippets, around, parsed, depth);
    }
}

/// The texts that an import stands for.
fn imported(what: &str, around: &impl Surroundings, parsed: &mut Parsed, depth: u8) -> Vec<String> {
    let files = if depth < MAX_DEPTH { around.files(what) } else { Err("it is imported too deep".into()) };
    files.unwrap_or_else(|why| {
        parsed.doubts.push(format!("import {what}: {why}"));
        Vec::new()
    })
}

type Snippets<'a> = BTreeMap<&'a str, &'a [Token]>;

struct Block<'a> {
    keys: &'a [Token],
    body: &'a [Token],
}

impl<'a> Block<'a> {
    /// `(name) { ... }`
    fn snippet(&self) -> Option<&'a str> {
        match self.keys {
            [key] => key.text.strip_prefix('(')?.strip_suffix(')'),
            _ => None,
        }
    }
}

/// The zone of a block's key: `.` of `.`, `.:53`, `dns://.:1053`, `tls://.`, and of a key of nothing but a port.
fn zone(key: &str) -> String {
    let zone = key.trim_end_matches(',');
    let zone = zone.split_once("://").map_or(zone, |(_, rest)| rest);
    let (name, port) = zone.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).unwrap_or((zone, ""));
    match name {
        "" if !port.is_empty() => ".".into(),
        name => name.to_owned(),
    }
}

/// Server blocks and snippets, and lines outside of any (`import`), which have no body.
fn blocks(tokens: &[Token]) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let start = at;
        if tokens[at].is("import") {
            at += 1;
            while at < tokens.len() && !tokens[at].first {
                at += 1;
            }
            blocks.push(Block { keys: &tokens[start..at], body: &[] });
            continue;
        }
        while at < tokens.len() && !tokens[at].is("{") {
            at += 1;
        }
        let keys = &tokens[start..at];
        let end = closing(tokens, at);
        blocks.push(Block { keys, body: tokens.get(at + 1..end).unwrap_or_default() });
        at = end + 1;
    }
    blocks
}

/// Index of the brace that closes the one at `open`; the end, when there is none.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is("{") {
            depth += 1;
        } else if token.is("}") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at;
            }
        }
    }
    tokens.len()
}

/// `zones`: those of the server block.
fn read_body(
    body: &[Token],
    zones: &str,
    snippets: &Snippets<'_>,
    around: &impl Surroundings,
    parsed: &mut Parsed,
    depth: u8,
) {
    let mut at = 0;
    while at < body.len() {
        let line_end = (at + 1..body.len()).find(|&i| body[i].first || body[i].is("{")).unwrap_or(body.len());
        let line = &body[at..line_end];
        let mut options: &[Token] = &[];
        at = match body.get(line_end) {
            Some(token) if token.is("{") => {
                let end = closing(body, line_end);
                options = body.get(line_end + 1..end).unwrap_or_default();
                end + 1
            }
            _ => line_end,
        };
        match line {
            [name, from, to @ ..] if name.is("forward") => {
                let to = to.iter().filter(|token| !token.is("}")).map(|token| token.text.clone()).collect();
                let zone = if from.text == "." { zones.to_owned() } else { from.text.clone() };
                parsed.forwards.push(forward(zone, to, options));
            }
            [name, what, ..] if name.is("import") => match snippets.get(what.text.as_str()) {
                Some(snippet) if depth < MAX_DEPTH => {
                    read_body(snippet, zones, snippets, around, parsed, depth + 1);
                }
                Some(_) => parsed.doubts.push(format!("import {}: it imports itself", what.text)),
                None => {
                    for file in imported(&what.text, around, parsed, depth) {
                        let tokens = tokens(&file, &|name: &str| around.variable(name));
                        read_body(&tokens, zones, snippets, around, parsed, depth + 1);
                    }
                }
            },
            _ => {}
        }
    }
}

/// The options of plugin/forward that matter here.
fn forward(zone: String, to: Vec<String>, options: &[Token]) -> Forward {
    let value = |name: &str| {
        let at = options.iter().position(|token| token.first && token.is(name))?;
        Some(options.get(at + 1).filter(|token| !token.first).map_or("", |token| token.text.as_str()))
    };
    Forward {
        zone,
        to,
        policy: value("policy").filter(|policy| !policy.is_empty()).map(str::to_owned),
        force_tcp: value("force_tcp").is_some(),
        max_concurrent: value("max_concurrent").and_then(|number| number.parse().ok()),
    }
}

/// Words, quoted strings, and braces that stand alone, as Caddy's lexer cuts them.
fn tokens(text: &str, environment: &impl Fn(&str) -> Option<String>) -> Vec<Token> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut first = true;
        let mut rest = line.trim_start();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (word, quoted, after) = match rest.strip_prefix('"') {
                Some(inner) => {
                    let (word, after) = inner.split_once('"').unwrap_or((inner, ""));
                    (word, true, after)
                }
                None => {
                    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    (word, false, after)
                }
            };
            tokens.push(Token { text: substitute(word, environment), first, quoted });
            first = false;
            rest = after.trim_start();
        }
    }
    tokens
}

/// `{$NAME}` and `{%NAME%}`.
fn substitute(word: &str, environment: &impl Fn(&str) -> Option<String>) -> String {
    let mut whole = String::new();
    let mut rest = word;
    while let Some(start) = rest.find("{$").into_iter().chain(rest.find("{%")).min() {
        let Some(length) = rest[start..].find('}') else { break };
        let name = rest[start + 2..start + length].trim_end_matches('%');
        whole.push_str(&rest[..start]);
        whole.push_str(&environment(name).unwrap_or_default());
        rest = &rest[start + length + 1..];
    }
    whole + rest
}

#[cfg(test)]
#[path = "corefile_tests.rs"]
mod tests;
