//! Content negotiation: what a body is in, what the answer is to be in, and into what it is turned (`as=Table`, `as=PartialObjectMetadata`).
//! Deliberately absent: CBOR, which upstream has off by default.

use tiphys_meta::{ApiError, Reason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

const ALL: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn subtype(self) -> &'static str {
        &self.content_type()["application/".len()..]
    }
}

/// What the answer's objects are turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Object,
    Table,
    Metadata,
}

/// The outcome of negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) shown: Shown,
    /// `meta.k8s.io/v1beta1` was asked for.
    pub(crate) beta: bool,
}

impl Output {
    pub(crate) const JSON: Output = Output { format: Format::Json, shown: Shown::Object, beta: false };

    /// `apiVersion` of tables and partial metadata.
    pub(crate) fn meta_version(&self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    /// Custom resources have no `protobuf`, apart from their metadata.
    pub(crate) fn negotiate(accept: &str, watch: bool, protobuf: bool) -> Result<Output, ApiError> {
        if accept.is_empty() {
            return Ok(Output::JSON);
        }
        let clauses = clauses(accept);
        let possible = |o: &Output| protobuf || o.format != Format::Protobuf || o.shown != Shown::Object;
        let output = clauses.iter().find_map(|clause| clause.output(watch).filter(possible));
        output.ok_or_else(|| if clauses.iter().any(Clause::is_ours) { not_acceptable(watch) } else { no_route() })
    }
}

fn not_acceptable(watch: bool) -> ApiError {
    if watch {
        only_accepted(&["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"])
    } else {
        only_accepted(&ALL.map(Format::content_type))
    }
}

/// 406, with what could be had.
pub fn only_accepted(media_types: &[&str]) -> ApiError {
    ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {}", media_types.join(", ")))
}

/// No encoding of ours at all: upstream's router answers before its negotiation does.
fn no_route() -> ApiError {
    let accepted = ALL.map(|f| f.content_type()).join(", ");
    ApiError::of_the_router(Reason::NotAcceptable, format!("406: Not Acceptable\n\nAvailable representations: {accepted}"))
}

/// What a client takes (RFC 9110 §12.5.1), what it likes best first.
pub fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause> = accept.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

/// One media range of an `Accept` header, with what it wants the object turned into.
pub struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
    /// `as`, `g` and `v`; empty where the object is to stay what it is.
    pub shown: &'a str,
    pub group: &'a str,
    pub version: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Clause<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut clause = Clause { kind, subtype, quality: 1.0, shown: "", group: "", version: "" };
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(0.0),
                "as" => clause.shown = value.trim(),
                "g" => clause.group = value.trim(),
                "v" => clause.version = value.trim(),
                _ => {}
            }
        }
        Some(clause)
    }

    /// Whether the media type is in the range.
    pub fn takes(&self, media_type: &str) -> bool {
        let (kind, subtype) = media_type.split_once('/').unwrap_or((media_type, ""));
        (self.kind == "*" || self.kind == kind) && (self.subtype == "*" || self.subtype == subtype)
    }

    /// Whether the object is to stay what it is.
    pub fn is_plain(&self) -> bool {
        self.shown.is_empty() && self.group.is_empty() && self.version.is_empty()
    }

    fn is_ours(&self) -> bool {
        self.kind == "*" || self.kind == "application" && (self.subtype == "*" || ALL.iter().any(|f| f.subtype() == self.subtype))
    }

    fn output(&self, watch: bool) -> Option<Output> {
        let any = self.kind == "*" && self.subtype == "*";
        if !any && self.kind != "application" {
            return None;
        }
        let formats = ALL.into_iter().filter(|f| any || self.subtype == "*" || self.subtype == f.subtype());
        formats.filter(|f| !(watch && *f == Format::Yaml)).find_map(|format| self.turned(format))
    }

    fn turned(&self, format: Format) -> Option<Output> {
        if self.is_plain() {
            return Some(Output { format, shown: Shown::Object, beta: false });
        }
        if self.group != "meta.k8s.io" || !matches!(self.version, "v1" | "v1beta1") {
            return None;
        }
        let shown = match self.shown {
            "Table" if format != Format::Protobuf => Shown::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shown::Metadata,
            _ => return None,
        };
        Some(Output { format, shown, beta: self.version == "v1beta1" })
    }
}

/// What a request's body is in; JSON when nothing is said.
pub(crate) fn body_format(content_type: &str) -> Result<Format, ApiError> {
    let plain = content_type.split(';').next().unwrap_or("").trim();
    if plain.is_empty() {
        return Ok(Format::Json);
    }
    ALL.into_iter().find(|f| f.content_type() == plain).ok_or_else(|| unsupported(&ALL.map(Format::content_type)))
}

/// 415, with what would have been taken.
pub(crate) fn unsupported(accepted: &[&str]) -> ApiError {
    let message = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
    ApiError::new(Reason::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers() {
        let output = |accept: &str| Output::negotiate(accept, false, true).ok().map(|o| (o.format, o.shown));
        for (accept, want) in [
            ("", Some((Format::Json, Shown::Object))),
            ("*/*", Some((Format::Json, Shown::Object))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Format::Protobuf, Shown::Object))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Format::Json, Shown::Table)),
            ),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Some((Format::Protobuf, Shown::Metadata))),
            ("application/json;q=0.5, application/yaml", Some((Format::Yaml, Shown::Object))),
            ("application/json;as=Table;v=v1;g=foo.io", None),
            ("text/html", None),
        ] {
            assert_eq!(output(accept), want, "{accept}");
        }
        assert_eq!(Output::negotiate("application/yaml", true, true).err().map(|e| e.code), Some(406));
    }

    #[test]
    fn bodies() {
        assert_eq!(body_format("application/json; charset=utf-8").ok(), Some(Format::Json));
        assert_eq!(body_format("text/plain").err().map(|e| e.code), Some(415));
    }
}
