//! Named formats: `format.dns1123Label().validate(name)`.

use tiphys_meta::names;

use super::opaque::Opaque;
use crate::time;
use crate::value::{Eval, Val};

pub struct Format {
    pub(crate) name: &'static str,
    validate: fn(&str) -> Vec<String>,
    /// What validation costs is reckoned from this.
    pub(crate) max_regex: u64,
}

/// As the library's functions are called.
pub(crate) const NAMES: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

static FORMATS: [Format; 13] = [
    Format { name: NAMES[0], validate: |s| names::name_is_dns_label(s, false), max_regex: 30 },
    Format { name: NAMES[1], validate: |s| names::name_is_dns_subdomain(s, false), max_regex: 60 },
    Format { name: NAMES[2], validate: |s| names::name_is_dns1035_label(s, false), max_regex: 30 },
    Format { name: NAMES[3], validate: names::qualified_name, max_regex: 60 },
    Format { name: NAMES[4], validate: |s| names::name_is_dns_label(s, true), max_regex: 30 },
    Format { name: NAMES[5], validate: |s| names::name_is_dns_subdomain(s, true), max_regex: 60 },
    Format { name: NAMES[6], validate: |s| names::name_is_dns1035_label(s, true), max_regex: 30 },
    Format { name: NAMES[7], validate: names::label_value, max_regex: 40 },
    Format { name: NAMES[8], validate: |s| super::url::parse(s).err().into_iter().collect(), max_regex: 1103 },
    Format { name: NAMES[9], validate: |s| unless(is_uuid(s), "does not match the UUID format"), max_regex: 97 },
    Format { name: NAMES[10], validate: |s| unless(is_base64(s), "invalid base64"), max_regex: 84 },
    Format { name: NAMES[11], validate: |s| unless(time::parse_date(s).is_some(), "invalid date"), max_regex: 170 },
    Format { name: NAMES[12], validate: |s| unless(time::parse(s).is_some(), "invalid datetime"), max_regex: 170 },
];

fn unless(fine: bool, why: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![why.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(i, _)| i).collect();
    hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}

fn is_base64(text: &str) -> bool {
    tiphys_meta::base64::decode(text).is_ok()
}

fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|f| f.name == name)
}

pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Eval<Val<'a>>> {
    let val = |format: &'static Format| Val::Opaque(Opaque::Format(format));
    Some(Ok(match (name, args) {
        ("format.named", [Val::Str(name)]) => find(name).map_or(Val::Optional(None), |f| Val::some(val(f))),
        ("validate", [Val::Opaque(Opaque::Format(format)), Val::Str(text)]) => match (format.validate)(text) {
            errors if errors.is_empty() => Val::Optional(None),
            errors => Val::some(Val::list(errors.into_iter().map(Val::text).collect())),
        },
        (name, []) => val(find(name.strip_prefix("format.")?)?),
        _ => return None,
    }))
}
