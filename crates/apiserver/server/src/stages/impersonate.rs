//! Stage 4: `Impersonate-*` headers: acting as someone else, if every part of that identity is allowed to the asker.
//!
//! Absent: constrained impersonation (KEP-5284), which is off by default in v1.36.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use tiphys_meta::ApiError;
use tiphys_registry::UserInfo;

use crate::authenticate::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authorize::Attributes;
use crate::chain::{Call, Door};
use crate::errors::{DoorError, forbidden};

pub(crate) const NAME: &str = "impersonation";

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

pub(crate) fn run(door: &Door, call: &mut Call) -> Result<(), DoorError> {
    let Some(wanted) = read(&call.parts.headers)? else { return Ok(()) };
    check(door, &call.user, &wanted)?;
    let names: Vec<HeaderName> = call.parts.headers.keys().filter(|k| k.as_str().starts_with(PREFIX)).cloned().collect();
    for name in names {
        call.parts.headers.remove(name);
    }
    let user = Arc::new(with_groups(wanted));
    call.impersonator = Some(std::mem::replace(&mut call.user, user));
    Ok(())
}

/// The identity that the headers ask for; groups are only those that are named.
fn read(headers: &HeaderMap) -> Result<Option<UserInfo>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let all = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok().map(str::to_owned)).collect::<Vec<_>>();
    let mut user = UserInfo::new(all(USER).into_iter().next().unwrap_or_default(), &[]);
    user.uid = all(UID).into_iter().next().unwrap_or_default();
    user.groups = all(GROUP);
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            user.extra.insert(key, all(name.as_str()));
        }
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if !user.uid.is_empty() || !user.groups.is_empty() || !user.extra.is_empty() {
        return Err(ApiError::bad_request(format!("requested {:?} without impersonating a user", user.groups)));
    }
    Ok(None)
}

fn check(door: &Door, asker: &UserInfo, wanted: &UserInfo) -> Result<(), ApiError> {
    let question = Attributes { verb: "impersonate", is_resource: true, ..Attributes::default() };
    let ask = |question: Attributes<'_>| {
        let decision = door.authorization.decide(asker, &question);
        if decision.is_allowed() { Ok(()) } else { Err(forbidden(asker, &question, decision.reason())) }
    };
    match wanted.service_account() {
        Some((namespace, name)) => ask(Attributes { version: "v1", resource: "serviceaccounts", namespace, name, ..question })?,
        None => ask(Attributes { resource: "users", name: &wanted.name, ..question })?,
    }
    for group in &wanted.groups {
        ask(Attributes { resource: "groups", name: group, ..question })?;
    }
    let authentication = Attributes { group: "authentication.k8s.io", version: "v1", ..question };
    for (key, values) in &wanted.extra {
        for value in values {
            ask(Attributes { resource: "userextras", subresource: key, name: value, ..authentication })?;
        }
    }
    if !wanted.uid.is_empty() {
        ask(Attributes { resource: "uids", name: &wanted.uid, ..authentication })?;
    }
    Ok(())
}

/// The groups that come with a name by themselves.
fn with_groups(mut user: UserInfo) -> UserInfo {
    if user.groups.is_empty()
        && let Some((namespace, _)) = user.service_account()
    {
        user.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    }
    let implied = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    let said = user.in_group(implied) || user.in_group(UNAUTHENTICATED);
    if !said {
        user.groups.push(implied.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().expect("value"))).collect()
    }

    #[test]
    fn headers_make_an_identity() {
        let user = |pairs: &[(&'static str, &str)]| read(&headers(pairs)).map(|u| u.map(with_groups));
        assert_eq!(user(&[]), Ok(None));
        assert_eq!(user(&[(USER, "ann")]).map(|u| u.map(|u| u.groups)), Ok(Some(vec![AUTHENTICATED.to_owned()])));
        let bot = user(&[(USER, "system:serviceaccount:ns:bot")]).expect("good").expect("someone");
        assert_eq!(bot.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        let nobody = user(&[(USER, ANONYMOUS)]).expect("good").expect("someone");
        assert_eq!(nobody.groups, [UNAUTHENTICATED]);
        assert_eq!(user(&[(GROUP, "g")]).expect_err("refused").code, 400);
        let extra = user(&[(USER, "a"), ("impersonate-extra-acme.com%2fx", "1")]).expect("good").expect("someone");
        assert_eq!(extra.extra["acme.com/x"], ["1"]);
    }
}
