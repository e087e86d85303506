//! Every explanation as one page of Markdown: docs/findings.md. The texts are Markdown as they stand; codes and issues
//! become links.

use std::io::{self, Write};

use super::{Explanation, group_name};

const HEAD: &str = "\
# Findings

What each finding means, why it happens, how to see it by hand, how to fix it, and which versions it is about.
`hostdns-probe explain CODE` prints the same in a terminal. A code is never reused, so links to this page stay good:
`findings.md#hdp201`.

<!-- Made by `cargo xtask docs` from probe-user/src/checks; a test holds the two against each other. -->
";

pub(super) fn render(all: &[Explanation], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{HEAD}")?;
    let mut group = None;
    for one in all {
        let hundred = one.code.as_bytes().get(3).copied();
        if group != hundred {
            writeln!(out, "## {}\n", group_name(hundred))?;
            group = hundred;
        }
        let anchor = one.code.to_lowercase();
        writeln!(out, "<a id=\"{anchor}\"></a>\n\n### {} {}\n\n**{}**\n", one.code, one.slug, linked(one.summary))?;
        for paragraph in one.explanation.split("\n\n") {
            writeln!(out, "{}\n", labelled(&linked(&paragraph.replace('\n', " "))))?;
        }
    }
    Ok(())
}

/// What a paragraph is about, where it says so, in bold.
fn labelled(paragraph: &str) -> String {
    ["By hand:", "Fix:", "Versions:"]
        .into_iter()
        .find_map(|label| paragraph.strip_prefix(label).map(|rest| format!("**{label}**{rest}")))
        .unwrap_or_else(|| paragraph.to_owned())
}

/// `HDP201`, `cilium issue 36761` and `siderolabs/talos issue 10002` as links; what is code stays as it is.
fn linked(text: &str) -> String {
    let prose_and_code: Vec<String> =
        text.split('`').enumerate().map(|(n, part)| if n % 2 == 0 { link(part) } else { part.to_owned() }).collect();
    prose_and_code.join("`")
}

fn link(prose: &str) -> String {
    const HEADS: [(&str, &str); 4] = [
        ("HDP", "#hdp"),
        ("cilium issue ", "https://github.com/cilium/cilium/issues/"),
        ("cilium pull request ", "https://github.com/cilium/cilium/pull/"),
        ("siderolabs/talos issue ", "https://github.com/siderolabs/talos/issues/"),
    ];
    let mut out = String::with_capacity(prose.len());
    let mut rest = prose;
    while let Some((at, head, url)) = first_of(rest, &HEADS) {
        let (before, from) = rest.split_at(at);
        let digits = from[head.len()..].bytes().take_while(u8::is_ascii_digit).count();
        let (name, after) = from.split_at(head.len() + digits);
        out.push_str(before);
        if digits < 3 {
            out.push_str(name);
        } else {
            out.push_str(&format!("[{name}]({url}{})", &name[head.len()..]));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn first_of<'a>(text: &str, heads: &[(&'a str, &'a str)]) -> Option<(usize, &'a str, &'a str)> {
    heads.iter().filter_map(|&(head, url)| Some((text.find(head)?, head, url))).min_by_key(|&(at, ..)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_issues_are_links_and_code_is_not() {
        assert_eq!(
            linked("see HDP201, (cilium issue 36761) and `HDP202`; siderolabs/talos issue 10002. HDP"),
            "see [HDP201](#hdp201), ([cilium issue 36761](https://github.com/cilium/cilium/issues/36761)) and `HDP202`; \
             [siderolabs/talos issue 10002](https://github.com/siderolabs/talos/issues/10002). HDP"
        );
    }

    #[test]
    fn labels_are_bold() {
        assert_eq!(labelled("Fix: restart."), "**Fix:** restart.");
        assert_eq!(labelled("Fix, one of these: a"), "Fix, one of these: a");
    }
}
