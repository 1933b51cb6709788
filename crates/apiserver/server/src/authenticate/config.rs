//! `--authentication-config`: an AuthenticationConfiguration (`apiserver.config.k8s.io/v1`), checked in upstream's words.
//!
//! Absent: `egressSelectorType`, for there are no egress selectors.

use std::path::Path as FilePath;

use serde::Deserialize;
use tiphys_cel::Type;
use tiphys_meta::{ErrorList, Path};

use super::claims::{Authenticator, ClaimRule, Expression, Source};
use crate::config::{Anonymous, Pem};
use crate::config_file::{self, ConfigFileError};

/// What the file says.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) jwt: Vec<Authenticator>,
    pub(crate) anonymous: Option<Anonymous>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousAuth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousAuth {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: Issuer,
    #[serde(default)]
    claim_validation_rules: Vec<Rule>,
    #[serde(default)]
    claim_mappings: Mappings,
    #[serde(default)]
    user_validation_rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    #[serde(default)]
    certificate_authority: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Mappings {
    #[serde(default)]
    username: Mapping,
    #[serde(default)]
    groups: Mapping,
    #[serde(default)]
    uid: Mapping,
    #[serde(default)]
    extra: Vec<Extra>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extra {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

/// `own`: the issuers of service account tokens, which nobody else may be.
pub(crate) fn read(path: &FilePath, own: &[String]) -> Result<Settings, ConfigFileError> {
    config_file::read("authentication-config", path, |bytes| parse(bytes, own))
}

fn parse(bytes: &[u8], own: &[String]) -> Result<Settings, String> {
    let file: File = config_file::object(bytes, config_file::APISERVER, "AuthenticationConfiguration")?;
    let mut errors = ErrorList::new();
    let list = Path::new("jwt");
    if file.jwt.len() > 64 {
        errors.too_many(&list, file.jwt.len(), 64);
        return Err(errors.message());
    }
    let mut jwt = Vec::new();
    for (i, one) in file.jwt.iter().enumerate() {
        let path = list.index(i);
        let twice = |field: fn(&Issuer) -> &String| {
            let value = field(&one.issuer);
            !value.is_empty() && file.jwt[..i].iter().any(|other| field(&other.issuer) == value)
        };
        jwt.extend(authenticator(one, own, &path, &mut errors));
        if twice(|issuer| &issuer.url) {
            errors.duplicate(&path.child("issuer").child("url"), one.issuer.url.as_str());
        }
        if twice(|issuer| &issuer.discovery_url) {
            errors.duplicate(&path.child("issuer").child("discoveryURL"), one.issuer.discovery_url.as_str());
        }
    }
    let anonymous = file.anonymous.map(|given| anonymous(given, &mut errors));
    if errors.is_empty() { Ok(Settings { jwt, anonymous }) } else { Err(errors.message()) }
}

fn anonymous(given: AnonymousAuth, errors: &mut ErrorList) -> Anonymous {
    if !given.enabled && !given.conditions.is_empty() {
        errors.invalid_unshown(&Path::new("anonymous").child("conditions"), "enabled should be set to true when conditions are defined");
    }
    match (given.enabled, given.conditions) {
        (false, _) => Anonymous::Off,
        (true, conditions) if conditions.is_empty() => Anonymous::On,
        (true, conditions) => Anonymous::Exactly(conditions.into_iter().map(|c| c.path).collect()),
    }
}

fn authenticator(given: &Jwt, own: &[String], path: &Path<'_>, errors: &mut ErrorList) -> Option<Authenticator> {
    issuer(&given.issuer, own, &path.child("issuer"), errors);
    let claim_rules = claim_rules(&given.claim_validation_rules, &path.child("claimValidationRules"), errors);
    let mappings = path.child("claimMappings");
    let username = source(&given.claim_mappings.username, true, &[Type::String], &mappings.child("username"), errors);
    let many = [Type::String, Type::list(Type::String)];
    let groups = source(&given.claim_mappings.groups, false, &many, &mappings.child("groups"), errors);
    let uid = uid(&given.claim_mappings.uid, &mappings.child("uid"), errors);
    let extra = extra(&given.claim_mappings.extra, &mappings.child("extra"), errors);
    if let Some(Source::Expression(name)) = &username {
        let of_rules = claim_rules.iter().filter_map(|rule| match rule {
            ClaimRule::Expression(expression, _) => Some(expression),
            ClaimRule::Value { .. } => None,
        });
        let verified = std::iter::once(name).chain(of_rules).chain(extra.iter().map(|(_, e)| e)).any(|e| e.uses_claim("email_verified"));
        if name.uses_claim("email") && !verified {
            let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or \
                       claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
            errors.invalid(&mappings.child("username").child("expression"), name.text.as_str(), why);
        }
    }
    let user_rules = user_rules(&given.user_validation_rules, &path.child("userValidationRules"), errors);
    let Issuer { url, discovery_url, certificate_authority, audiences, .. } = &given.issuer;
    Some(Authenticator {
        url: url.clone(),
        discovery_url: Some(discovery_url.clone()).filter(|u| !u.is_empty()),
        ca: Some(certificate_authority.clone()).filter(|ca| !ca.is_empty()).map(Pem::Text),
        audiences: audiences.clone(),
        claim_rules,
        username: username?,
        groups,
        uid,
        extra,
        user_rules,
    })
}

fn issuer(given: &Issuer, own: &[String], path: &Path<'_>, errors: &mut ErrorList) {
    let url = path.child("url");
    if given.url.is_empty() {
        errors.required(&url, "URL is required");
    } else {
        if own.contains(&given.url) {
            errors.invalid(&url, given.url.as_str(), format!("URL must not overlap with disallowed issuers: [{}]", own.join(" ")));
        }
        address(&given.url, &url, errors);
    }
    if !given.discovery_url.is_empty() {
        let place = path.child("discoveryURL");
        if given.discovery_url.trim_end_matches('/') == given.url.trim_end_matches('/') {
            errors.invalid(&place, given.discovery_url.as_str(), "discoveryURL must be different from URL");
        }
        address(&given.discovery_url, &place, errors);
    }
    let audiences = path.child("audiences");
    if given.audiences.is_empty() {
        errors.required(&audiences, format!("at least one {audiences} is required"));
    }
    for (i, audience) in given.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.required(&audiences.index(i), "");
        }
        if given.audiences[..i].contains(audience) {
            errors.duplicate(&audiences.index(i), audience.as_str());
        }
    }
    let policy = given.audience_match_policy.as_str();
    if given.audiences.len() > 1 && policy != "MatchAny" {
        errors.invalid(&path.child("audienceMatchPolicy"), policy, "audienceMatchPolicy must be MatchAny for multiple audiences");
    } else if given.audiences.len() == 1 && !matches!(policy, "" | "MatchAny") {
        errors.invalid(&path.child("audienceMatchPolicy"), policy, "audienceMatchPolicy must be empty or MatchAny for single audience");
    }
}

fn address(url: &str, path: &Path<'_>, errors: &mut ErrorList) {
    let (rest, fragment) = url.split_once('#').map_or((url, false), |(rest, _)| (rest, true));
    let (rest, query) = rest.split_once('?').map_or((rest, false), |(rest, _)| (rest, true));
    let host = rest.strip_prefix("https://").map(|r| r.split('/').next().unwrap_or(""));
    for (wrong, why) in [
        (host.is_none(), "URL scheme must be https"),
        (host.is_some_and(|h| h.contains('@')), "URL must not contain a username or password"),
        (query, "URL must not contain a query"),
        (fragment, "URL must not contain a fragment"),
    ] {
        if wrong {
            errors.invalid(path, url, why);
        }
    }
}

fn compiled(result: Result<Expression, String>, text: &str, path: &Path<'_>, errors: &mut ErrorList) -> Option<Expression> {
    result.map_err(|why| errors.invalid(path, text, why)).ok()
}

fn claim_rules(rules: &[Rule], path: &Path<'_>, errors: &mut ErrorList) -> Vec<ClaimRule> {
    let mut made = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let twice = |field: fn(&Rule) -> &String| rules[..i].iter().any(|other| field(other) == field(rule));
        match (rule.claim.as_str(), rule.expression.as_str()) {
            ("", "") => errors.required(&path, "claim or expression is required"),
            ("", expression) => {
                if !rule.required_value.is_empty() {
                    errors.invalid(
                        &path.child("requiredValue"),
                        rule.required_value.as_str(),
                        "may not be specified when expression is set",
                    );
                }
                let place = path.child("expression");
                if twice(|r| &r.expression) {
                    errors.duplicate(&place, expression);
                }
                let program = compiled(Expression::over_claims(expression, &[Type::Bool]), expression, &place, errors);
                made.extend(program.map(|p| ClaimRule::Expression(p, rule.message.clone())));
            }
            (claim, "") => {
                if !rule.message.is_empty() {
                    errors.invalid(&path.child("message"), rule.message.as_str(), "may not be specified when claim is set");
                }
                if twice(|r| &r.claim) {
                    errors.duplicate(&path.child("claim"), claim);
                }
                made.push(ClaimRule::Value { claim: claim.to_owned(), value: rule.required_value.clone() });
            }
            (claim, _) => errors.invalid(&path, claim, "claim and expression can't both be set"),
        }
    }
    made
}

fn user_rules(rules: &[Rule], path: &Path<'_>, errors: &mut ErrorList) -> Vec<(Expression, String)> {
    let mut made = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let (place, text) = (path.index(i), rule.expression.as_str());
        let place = place.child("expression");
        if text.is_empty() {
            errors.required(&place, "");
        } else if rules[..i].iter().any(|other| other.expression == text) {
            errors.duplicate(&place, text);
        } else {
            made.extend(compiled(Expression::over_user(text), text, &place, errors).map(|e| (e, rule.message.clone())));
        }
    }
    made
}

fn source(given: &Mapping, needed: bool, wanted: &[Type], path: &Path<'_>, errors: &mut ErrorList) -> Option<Source> {
    match (given.claim.as_str(), given.expression.as_str()) {
        ("", "") => {
            if needed {
                errors.required(path, "claim or expression is required");
            }
            None
        }
        ("", expression) => {
            if let Some(prefix) = &given.prefix {
                errors.invalid(&path.child("prefix"), prefix.as_str(), "may not be specified when expression is set");
            }
            // What comes out of claims is known only when it runs.
            let wanted: Vec<Type> = wanted.iter().cloned().chain([Type::Dyn, Type::list(Type::Dyn)]).collect();
            compiled(Expression::over_claims(expression, &wanted), expression, &path.child("expression"), errors).map(Source::Expression)
        }
        (claim, "") => {
            let Some(prefix) = given.prefix.clone() else {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                errors.required(&path.child("prefix"), why);
                return None;
            };
            Some(Source::Claim { name: claim.to_owned(), prefix })
        }
        _ => {
            errors.invalid(path, "", "claim and expression can't both be set");
            None
        }
    }
}

fn uid(given: &Mapping, path: &Path<'_>, errors: &mut ErrorList) -> Option<Source> {
    match (given.claim.as_str(), given.expression.as_str()) {
        ("", "") => None,
        ("", text) => {
            let program = Expression::over_claims(text, &[Type::String, Type::Dyn]);
            compiled(program, text, &path.child("expression"), errors).map(Source::Expression)
        }
        (claim, "") => Some(Source::Claim { name: claim.to_owned(), prefix: String::new() }),
        _ => {
            errors.invalid(path, "", "claim and expression can't both be set");
            None
        }
    }
}

fn extra(given: &[Extra], path: &Path<'_>, errors: &mut ErrorList) -> Vec<(String, Expression)> {
    let mut made = Vec::new();
    for (i, one) in given.iter().enumerate() {
        let (path, key) = (path.index(i), one.key.as_str());
        let place = path.child("key");
        let domain = key.split_once('/').map(|(domain, rest)| (domain, rest.is_empty()));
        match domain {
            None if key.is_empty() => errors.required(&place, ""),
            None | Some((_, true)) => errors.invalid(&place, key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
            Some((domain, false)) => errors.invalid_all(&place, key, tiphys_meta::names::dns1123_subdomain(domain)),
        }
        if key != key.to_lowercase() {
            errors.invalid(&place, key, "must be lowercase");
        }
        let domain = domain.map_or("", |(domain, _)| domain);
        if ["k8s.io", "kubernetes.io"].iter().any(|own| domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        {
            errors.invalid(&place, key, "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
        }
        if given[..i].iter().any(|other| other.key == key) {
            errors.duplicate(&place, key);
        }
        let (place, text) = (path.child("valueExpression"), one.value_expression.as_str());
        if text.is_empty() {
            errors.required(&place, "");
            continue;
        }
        let wanted = [Type::String, Type::list(Type::String), Type::Dyn, Type::list(Type::Dyn)];
        made.extend(compiled(Expression::over_claims(text, &wanted), text, &place, errors).map(|e| (key.to_owned(), e)));
    }
    made
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer: {url: "https://a.example.com", audiences: [one, two], audienceMatchPolicy: MatchAny}
  claimValidationRules:
  - {expression: 'claims.hd == "example.com"', message: the domain must be example.com}
  - {claim: tenant, requiredValue: t}
  claimMappings:
    username: {expression: '"a:" + claims.sub'}
    groups: {expression: 'claims.roles.split(",")'}
    uid: {claim: sub}
    extra: [{key: example.com/tenant, valueExpression: claims.tenant}]
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: reserved}
- issuer: {url: "https://b.example.com", discoveryURL: "https://inner.example.com/discovery", audiences: [one]}
  claimMappings: {username: {claim: email, prefix: "b:"}}
"#;

    #[test]
    fn claims_become_users() {
        let settings = parse(GOOD.as_bytes(), &[]).expect("a configuration");
        assert_eq!(settings.anonymous, Some(Anonymous::Exactly(vec!["/livez".into()])));
        let [first, second] = &settings.jwt[..] else { panic!("two issuers") };
        let claims = json!({"sub": "ann", "hd": "example.com", "tenant": "t", "roles": "dev,ops"});
        let user = first.user_of(&claims).expect("a user");
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), user.groups.as_slice()),
            ("a:ann", "ann", &["dev".to_owned(), "ops".to_owned()][..])
        );
        assert_eq!(user.extra.get("example.com/tenant"), Some(&vec!["t".to_owned()]));
        for (field, value, why) in [
            ("hd", "other.com", "failed: the domain must be example.com"),
            ("tenant", "u", "required claim tenant value does not match. Got = u, want = t"),
        ] {
            let mut claims = claims.clone();
            claims[field] = json!(value);
            let refused = first.user_of(&claims).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(second.user_of(&json!({"email": "a@b.c"})).expect("a user").name, "b:a@b.c");
        assert!(second.user_of(&json!({"email": "a@b.c", "email_verified": false})).is_err());
        let reserved = parse(GOOD.replace("\"a:\" + ", "").as_bytes(), &[]).expect("a configuration");
        let claims = json!({"sub": "system:admin", "hd": "example.com", "tenant": "t", "roles": ""});
        let refused = reserved.jwt[0].user_of(&claims).expect_err("reserved");
        assert!(refused.ends_with("failed: reserved"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (from, to, why) in [
            ("https://a.", "http://a.", "jwt[0].issuer.url: Invalid value: \"http://a.example.com\": URL scheme must be https"),
            (
                ", audienceMatchPolicy: MatchAny",
                "",
                "jwt[0].issuer.audienceMatchPolicy: Invalid value: \"\": audienceMatchPolicy must be MatchAny",
            ),
            (
                "{claim: email, prefix: \"b:\"}",
                "{claim: email}",
                "jwt[1].claimMappings.username.prefix: Required value: prefix is required",
            ),
            ("\"a:\" + claims.sub", "claims.email", "claims.email_verified must be used in"),
            ("\"a:\" + claims.sub", "claims.", "jwt[0].claimMappings.username.expression: Invalid value: \"claims.\": compilation failed"),
            (
                "example.com/tenant",
                "tenant",
                "jwt[0].claimMappings.extra[0].key: Invalid value: \"tenant\": must be a domain-prefixed path",
            ),
            ("https://b.", "https://a.", "jwt[1].issuer.url: Duplicate value: \"https://a.example.com\""),
            ("https://b.", "https://own.", "URL must not overlap with disallowed issuers: [https://own.example.com]"),
            ("discoveryURL:", "nonsense:", "unknown field"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let refused = parse(GOOD.replace(from, to).as_bytes(), &["https://own.example.com".to_owned()]).map(|_| ()).expect_err(why);
            assert!(refused.contains(why), "{refused}\nwanted: {why}");
        }
    }
}
