//! Links in a proxied page: those that lead to the page's own host go behind the proxy too. Everything else of the page stays byte for byte.

/// Elements with the attributes of theirs that are links.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// The link as it leads to the same place from outside: `prefix` is the proxy's path, `authority` the target's host and port.
/// None where it is to stay: relative, or elsewhere.
pub(super) fn behind(link: &str, prefix: &str, authority: &str) -> Option<String> {
    let own = ["http://", "https://"].iter().find_map(|s| link.strip_prefix(s)?.strip_prefix(authority));
    let path = match own {
        Some("") => "/",
        Some(path) if path.starts_with('/') => path,
        None if link.starts_with('/') && !link.starts_with("//") => link,
        _ => return None,
    };
    (!path.starts_with(prefix)).then(|| format!("{prefix}{path}"))
}

/// The page with its links behind the proxy.
pub(super) fn rewrite(page: &str, prefix: &str, authority: &str) -> String {
    let mut out = String::with_capacity(page.len() + 256);
    let mut rest = page;
    while let Some(open) = rest.find('<') {
        let (before, tag) = rest.split_at(open);
        out.push_str(before);
        let (end, skip) = end_of(tag);
        let (whole, after) = tag.split_at(end);
        push_tag(&mut out, whole, prefix, authority);
        // What stands in a script or a style sheet is no markup.
        let (raw, after) = after.split_at(skip.map_or(0, |name| raw_length(after, name)));
        out.push_str(raw);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The length of the tag or comment that begins here, and the element's name if raw text follows.
fn end_of(tag: &str) -> (usize, Option<&'static str>) {
    if tag.starts_with("<!--") {
        return (tag.find("-->").map_or(tag.len(), |i| i + 3), None);
    }
    let mut quote = None;
    let end = tag.char_indices().skip(1).find(|(_, c)| match (quote, *c) {
        (None, '>') => true,
        (None, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        (Some(q), c) if c == q => {
            quote = None;
            false
        }
        _ => false,
    });
    let end = end.map_or(tag.len(), |(i, _)| i + 1);
    let name = name_of(&tag[..end]);
    (end, ["script", "style", "textarea", "title"].into_iter().find(|raw| name.eq_ignore_ascii_case(raw)))
}

fn name_of(tag: &str) -> &str {
    let name = tag.get(1..).unwrap_or("");
    &name[..name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len())]
}

fn raw_length(text: &str, name: &str) -> usize {
    let wanted = format!("</{name}");
    text.to_ascii_lowercase().find(&wanted).unwrap_or(text.len())
}

fn push_tag(out: &mut String, tag: &str, prefix: &str, authority: &str) {
    let name = name_of(tag);
    let Some((_, links)) = LINKS.iter().find(|(element, _)| name.eq_ignore_ascii_case(element)) else { return out.push_str(tag) };
    let mut rest = tag;
    while let Some(equals) = rest.find('=') {
        let (head, tail) = rest.split_at(equals + 1);
        out.push_str(head);
        let attribute = head[..equals].rsplit(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'').find(|a| !a.is_empty());
        let blank = tail.len() - tail.trim_start().len();
        out.push_str(&tail[..blank]);
        let tail = &tail[blank..];
        let (start, length) = match tail.chars().next() {
            Some(quote @ ('"' | '\'')) => (1, tail[1..].find(quote).unwrap_or(tail.len() - 1)),
            _ => (0, tail.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(tail.len())),
        };
        let value = &tail[start..start + length];
        out.push_str(&tail[..start]);
        let is_link = attribute.is_some_and(|a| links.iter().any(|l| a.eq_ignore_ascii_case(l)));
        match is_link.then(|| behind(value, prefix, authority)).flatten() {
            Some(moved) => out.push_str(&moved),
            None => out.push_str(value),
        }
        rest = &tail[start + length..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_through_the_proxy() {
        let prefix = "/api/v1/namespaces/a/pods/p/proxy";
        let table = [
            ("<a href=\"/rewriteme\">test</a>", "<a href=\"/api/v1/namespaces/a/pods/p/proxy/rewriteme\">test</a>"),
            ("<A class=x HREF='/x'>", "<A class=x HREF='/api/v1/namespaces/a/pods/p/proxy/x'>"),
            ("<img alt=\"a=/b\" src=/i.png>", "<img alt=\"a=/b\" src=/api/v1/namespaces/a/pods/p/proxy/i.png>"),
            ("<a href=\"http://10.0.0.1:80/y?z=1\">", "<a href=\"/api/v1/namespaces/a/pods/p/proxy/y?z=1\">"),
            ("<a href=\"http://elsewhere/y\">", "<a href=\"http://elsewhere/y\">"),
            ("<a href=\"relative\"> <a href=\"//host/x\">", "<a href=\"relative\"> <a href=\"//host/x\">"),
            ("<a href=\"/api/v1/namespaces/a/pods/p/proxy/x\">", "<a href=\"/api/v1/namespaces/a/pods/p/proxy/x\">"),
            ("<script>'<a href=\"/x\">'</script><p title=\"/x\">", "<script>'<a href=\"/x\">'</script><p title=\"/x\">"),
            ("<!-- <a href=\"/x\"> --> a < b", "<!-- <a href=\"/x\"> --> a < b"),
            ("<a href=\"/x", "<a href=\"/api/v1/namespaces/a/pods/p/proxy/x"),
        ];
        for (page, want) in table {
            assert_eq!(rewrite(page, prefix, "10.0.0.1:80"), want);
        }
    }
}
