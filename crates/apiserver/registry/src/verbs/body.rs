//! From a request's body to a canonical tree of the served version, with upstream's checks of its type and its metadata.

use bytes::Bytes;
use serde_json::Value;
use tiphys_meta::{ApiError, Gvk, Reason, object};
use tiphys_schema::codec::{self, DecodeError, Decoded, Strictness};
use tiphys_schema::{Facts, Kind};

use super::Call;
use crate::negotiate::{Format, body_format};
use crate::options::Validation;

impl Validation {
    pub(crate) fn strictness(self) -> Strictness {
        match self {
            Validation::Ignore => Strictness::Ignore,
            Validation::Warn => Strictness::Warn,
            Validation::Strict => Strictness::Strict,
        }
    }
}

/// The type that a body says it is, where it says one.
fn said(tree: &Value) -> (&str, &str) {
    let text = |f| tree.get(f).and_then(Value::as_str).unwrap_or("");
    (text("kind"), text("apiVersion"))
}

impl Call<'_> {
    /// The request's object, which is to be of `kind`.
    pub(crate) fn decode(&mut self, body: &Bytes, kind: &'static Kind, validation: Validation) -> Result<Value, ApiError> {
        let format = body_format(&self.info.content_type)?;
        let cannot = |error: DecodeError, said: Option<&Gvk>| {
            refused(&error).unwrap_or_else(|| unreadable(&kind.gvk, said, &error.to_string(), body))
        };
        let decoded = match format {
            Format::Json => {
                codec::json::decode(kind, body, validation.strictness()).map_err(|e| cannot(e, json_type(kind, body).as_ref()))?
            }
            Format::Yaml => {
                let (tree, twice) = codec::yaml::read(body).map_err(|e| cannot(e, None))?;
                let (said_kind, version) = said(&tree);
                let gvk = said_or(kind, version, said_kind);
                let mut decoded = codec::json::canonicalize(kind, tree, validation.strictness()).map_err(|e| cannot(e, Some(&gvk)))?;
                if validation != Validation::Ignore {
                    decoded.problems.splice(0..0, twice);
                }
                decoded
            }
            Format::Protobuf => {
                let (_, object) = codec::proto::decode(body).map_err(|e| cannot(e, None))?;
                Decoded { object, problems: Vec::new() }
            }
        };
        self.check_type(kind, &decoded.object)?;
        self.report(&kind.gvk, decoded, validation)
    }

    /// Unknown and duplicate fields are errors or warnings.
    pub(crate) fn report(&mut self, gvk: &Gvk, decoded: Decoded, validation: Validation) -> Result<Value, ApiError> {
        if !decoded.problems.is_empty() {
            match validation {
                Validation::Strict => {
                    let why = format!("strict decoding error: {}", decoded.problems.join(", "));
                    return Err(unreadable(gvk, Some(gvk), &why, b""));
                }
                Validation::Warn => self.warnings.extend(decoded.problems),
                Validation::Ignore => {}
            }
        }
        Ok(decoded.object)
    }

    fn check_type(&self, kind: &Kind, tree: &Value) -> Result<(), ApiError> {
        let (said_kind, version) = said(tree);
        if said_kind == kind.gvk.kind && kind.gvk.is_of(version) {
            return Ok(());
        }
        let gvk = said_or(kind, version, said_kind);
        if Facts::builtin().kind(&gvk).is_none() {
            let why = format!("no kind \"{}\" is registered for version \"{}\" in scheme {SCHEME}", gvk.kind, gvk.api_version());
            return Err(unreadable(&kind.gvk, Some(&gvk), &why, b""));
        }
        if gvk.kind != kind.gvk.kind {
            let internal = if kind.gvk.group.is_empty() { "core" } else { kind.gvk.group.split('.').next().unwrap_or("") };
            let why = format!("converting ({}.{}) to ({internal}.{}): unknown conversion", gvk.version, gvk.kind, kind.gvk.kind);
            return Err(unreadable(&kind.gvk, Some(&gvk), &why, b""));
        }
        let wanted = kind.gvk.api_version();
        if !version.is_empty() && version != wanted {
            let message = format!("the API version in the data ({version}) does not match the expected API version ({wanted})");
            return Err(ApiError::bad_request(message));
        }
        Ok(())
    }

    /// The namespace of the object is the request's.
    pub(crate) fn check_namespace(&self, tree: &mut Value) -> Result<(), ApiError> {
        let given = object::namespace(tree);
        if !self.resource.namespaced {
            if given.is_empty() {
                return Ok(());
            }
            if &*self.resource.gvr.resource == "namespaces" && self.resource.gvr.group.is_empty() {
                object::meta_mut(tree).remove("namespace");
                return Ok(());
            }
        }
        let wanted = if self.resource.namespaced { self.info.namespace.as_str() } else { "" };
        if given.is_empty() {
            object::meta_mut(tree).insert("namespace".into(), Value::from(wanted));
        } else if given != wanted {
            return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
        }
        Ok(())
    }

    /// The name of the object is the URL's.
    pub(crate) fn check_name(&self, tree: &mut Value) -> Result<(), ApiError> {
        let (given, wanted) = (object::name(tree), self.info.name.as_str());
        if given.is_empty() {
            object::meta_mut(tree).insert("name".into(), Value::from(wanted));
            return Ok(());
        }
        if given != wanted {
            return Err(ApiError::bad_request(format!("the name of the object ({given}) does not match the name on the URL ({wanted})")));
        }
        Ok(())
    }
}

/// How upstream's decoder calls its table of types.
pub(crate) const SCHEME: &str = "\"pkg/runtime/scheme.go:111\"";

/// The type that a body says it is; what it leaves out is taken from what is wanted.
fn said_or(wanted: &Kind, api_version: &str, kind: &str) -> Gvk {
    let api_version = if api_version.is_empty() { wanted.gvk.api_version() } else { api_version.to_owned() };
    Gvk::from_api_version(&api_version, if kind.is_empty() { &wanted.gvk.kind } else { kind })
}

/// None where the body is no JSON object, or its type no text.
fn json_type(wanted: &Kind, body: &[u8]) -> Option<Gvk> {
    let (api_version, kind) = codec::json::type_meta(body).ok()?;
    body.trim_ascii_start().starts_with(b"{").then(|| said_or(wanted, &api_version, &kind))
}

/// What could be read, and is too much.
pub(crate) fn refused(error: &DecodeError) -> Option<ApiError> {
    matches!(error, DecodeError::TooLarge)
        .then(|| ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity is too large: {error}")))
}

pub(super) fn unreadable(wanted: &Gvk, said: Option<&Gvk>, why: &str, body: &[u8]) -> ApiError {
    let kind = &wanted.kind;
    ApiError::bad_request(match said {
        Some(gvk) => format!("{} in version \"{}\" cannot be handled as a {kind}: {why}", gvk.kind, gvk.version),
        None => {
            let why = untyped(why, wanted);
            format!("the object provided is unrecognized (must be of type {kind}): {why} ({})", summary(body))
        }
    })
}

/// The type is read first, into a small struct of its own, which the message names.
fn untyped(why: &str, wanted: &Gvk) -> String {
    if why.contains("YAML") {
        return why.to_owned();
    }
    let small = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let full = format!("Go value of type {}.{}", wanted.version, wanted.kind);
    format!("couldn't get version/kind; json parse error: {}", why.replace(&full, &format!("Go value of type {small}")))
}

/// The beginning of a body, as upstream shows it: an object as it stands, everything else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let head = &body[..body.len().min(SHOWN)];
    match head.first() {
        None => "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned() + more,
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect::<String>() + more,
    }
}
