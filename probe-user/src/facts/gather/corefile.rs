//! Reading a Corefile far enough to say whereto `.` is forwarded (coredns man corefile(5), plugin/forward).

use std::collections::BTreeMap;

/// What a Corefile says of the root zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Targets of `forward .`, as written: addresses, `tls://...`, names of files.
    pub(super) forwards: Vec<String>,
    /// Files and snippets it imports that were not followed.
    pub(super) imports: Vec<String>,
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

/// Parses a Corefile; `{$NAME}` is replaced by what `environment` says (empty, when it does not know it).
pub(super) fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Parsed {
    let tokens = tokens(text, &environment);
    let blocks = blocks(&tokens);
    let snippets: BTreeMap<&str, &[Token]> =
        blocks.iter().filter_map(|block| Some((block.snippet()?, block.body))).collect();
    let mut parsed = Parsed::default();
    for block in blocks.iter().filter(|block| block.snippet().is_none()) {
        if block.keys.first().is_some_and(|key| key.is("import")) {
            parsed.imports.extend(block.keys[1..].iter().map(|key| key.text.clone()));
        } else if block.keys.iter().any(|key| is_root_zone(&key.text)) {
            read_body(block.body, &snippets, &mut parsed, 0);
        }
    }
    parsed
}

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

/// `.`, `.:53`, `dns://.:1053`, `tls://.`; a key of nothing but a port is the root zone too.
fn is_root_zone(key: &str) -> bool {
    let zone = key.trim_end_matches(',');
    let zone = zone.split_once("://").map_or(zone, |(_, rest)| rest);
    zone == "."
        || zone.strip_prefix('.').unwrap_or(zone).strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
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

fn read_body(body: &[Token], snippets: &BTreeMap<&str, &[Token]>, parsed: &mut Parsed, depth: u8) {
    const MAX_DEPTH: u8 = 8; // a snippet may import itself
    let mut at = 0;
    while at < body.len() {
        let line_end = (at + 1..body.len()).find(|&i| body[i].first || body[i].is("{")).unwrap_or(body.len());
        let line = &body[at..line_end];
        at = match body.get(line_end) {
            Some(token) if token.is("{") => closing(body, line_end) + 1,
            _ => line_end,
        };
        match line {
            [name, from, to @ ..] if name.is("forward") && from.text == "." => {
                parsed.forwards.extend(to.iter().filter(|token| !token.is("}")).map(|token| token.text.clone()));
            }
            [name, what, ..] if name.is("import") => match snippets.get(what.text.as_str()) {
                Some(snippet) if depth < MAX_DEPTH => read_body(snippet, snippets, parsed, depth + 1),
                _ => parsed.imports.push(what.text.clone()),
            },
            _ => {}
        }
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
mod tests {
    use super::*;

    fn forwards(text: &str) -> Vec<String> {
        parse(text, |_| None).forwards
    }

    #[test]
    fn talos_corefile_forwards_to_its_resolv_conf() {
        let text = r"
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    log . {
        class error
    }
    prometheus :9153
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
        denial 9984 30
    }
    loop
    reload
    loadbalance
}
";
        assert_eq!(forwards(text), ["/etc/resolv.conf"]);
    }

    #[test]
    fn several_targets_and_schemes() {
        assert_eq!(
            forwards(". {\n forward . 169.254.116.108 tls://9.9.9.9:853 [fd00::1]:53\n}\n"),
            ["169.254.116.108", "tls://9.9.9.9:853", "[fd00::1]:53"]
        );
    }

    #[test]
    fn other_zones_do_not_count() {
        let text = "example.org:53 {\n forward . 10.0.0.1\n}\n.:53 {\n forward consul 10.0.0.2\n forward . 1.1.1.1\n}";
        assert_eq!(forwards(text), ["1.1.1.1"]);
        assert!(is_root_zone("dns://.:1053") && is_root_zone(":53") && is_root_zone(".,"));
        assert!(!is_root_zone("example.org") && !is_root_zone("..") && !is_root_zone(""));
    }

    #[test]
    fn comments_quotes_and_variables() {
        let text = "# all\n. {\n forward . \"{$UPSTREAM}\" {%OTHER%}:53 # {$NO}\n}";
        let known = |name: &str| (name == "UPSTREAM").then(|| "8.8.8.8".to_owned());
        assert_eq!(parse(text, known).forwards, ["8.8.8.8", ":53"]);
    }

    #[test]
    fn snippets_are_followed_and_files_are_told() {
        let text = "(up) {\n forward . 9.9.9.9\n}\nimport /etc/coredns/custom/*.server\n\
                    .:53 {\n import up\n import /etc/coredns/custom/*.override\n}";
        let parsed = parse(text, |_| None);
        assert_eq!(parsed.forwards, ["9.9.9.9"]);
        assert_eq!(parsed.imports, ["/etc/coredns/custom/*.server", "/etc/coredns/custom/*.override"]);
    }

    #[test]
    fn a_snippet_that_imports_itself_ends() {
        let parsed = parse("(a) {\n import a\n}\n. {\n import a\n}", |_| None);
        assert_eq!(parsed.imports, ["a"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "[ \n.{}$%#a-f\"()]{0,80}(import|forward . )?[ \n.{}$%é]{0,40}") {
            let _parsed = parse(&text, |_| Some("x".into()));
        }
    }
}
