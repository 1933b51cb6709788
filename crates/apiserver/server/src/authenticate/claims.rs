//! What is believed of a JWT, and what its claims say of a user: one `jwt` of an AuthenticationConfiguration (KEP-3331), or the `--oidc-*` flags.

use serde_json::Value;
use tiphys_cel::{Activation, Env, PER_CALL_LIMIT, Program, Provider, Type, Val, admission};
use tiphys_registry::UserInfo;

use crate::config::{OidcIssuer, Pem};
use crate::objects::{items, text};

/// An issuer, and how its tokens are read.
pub struct Authenticator {
    pub(crate) url: String,
    /// Where its discovery document is, if not below the issuer's address.
    pub(crate) discovery_url: Option<String>,
    /// None: the CAs that the machine trusts.
    pub(crate) ca: Option<Pem>,
    /// A token must be for one of them.
    pub(crate) audiences: Vec<String>,
    pub(crate) claim_rules: Vec<ClaimRule>,
    pub(crate) username: Source,
    pub(crate) groups: Option<Source>,
    pub(crate) uid: Option<Source>,
    pub(crate) extra: Vec<(String, Expression)>,
    /// With what is said where one does not hold.
    pub(crate) user_rules: Vec<(Expression, String)>,
}

/// Where a part of the user comes from.
pub(crate) enum Source {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

pub(crate) enum ClaimRule {
    Value { claim: String, value: String },
    Expression(Expression, String),
}

/// A compiled expression over `claims`, or over `user`.
pub(crate) struct Expression {
    pub(crate) text: String,
    program: Program,
}

const USER: &str = "kubernetes.UserInfo";

struct UserType;

impl Provider for UserType {
    fn has_type(&self, name: &str) -> bool {
        name == USER
    }

    fn field(&self, _: &str, field: &str) -> Option<Type> {
        Some(match field {
            "username" | "uid" => Type::String,
            "groups" => Type::list(Type::String),
            "extra" => Type::map(Type::String, Type::list(Type::String)),
            _ => return None,
        })
    }
}

impl Expression {
    pub(crate) fn over_claims(text: &str, wanted: &[Type]) -> Result<Expression, String> {
        Expression::compile(text, &Env::default().variable("claims", Type::map(Type::String, Type::Dyn)), wanted)
    }

    pub(crate) fn over_user(text: &str) -> Result<Expression, String> {
        let env = Env::default().variable("user", Type::structure(USER)).provider(std::sync::Arc::new(UserType));
        Expression::compile(text, &env, &[Type::Bool])
    }

    fn compile(text: &str, env: &Env, wanted: &[Type]) -> Result<Expression, String> {
        Ok(Expression { text: text.to_owned(), program: admission::compile(text, env, wanted)? })
    }

    /// Whether `claims.NAME` is looked at.
    pub(crate) fn uses_claim(&self, name: &str) -> bool {
        let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let packed: String = self.text.chars().filter(|c| !c.is_whitespace()).collect();
        let forms = [format!("claims.{name}"), format!("claims.?{name}"), format!("claims[\"{name}\"]"), format!("claims['{name}']")];
        forms.iter().any(|form| packed.match_indices(form.as_str()).any(|(at, found)| ends(&packed[at + found.len()..])))
    }

    fn eval(&self, variable: &'static str, value: &Value) -> Result<Value, String> {
        let outcome = self.program.eval(&Given(variable, value), PER_CALL_LIMIT);
        let told = |why: String| format!("expression '{}' resulted in error: {why}", self.text);
        outcome.result.and_then(|v| v.to_json()).map_err(|e| told(e.to_string()))
    }

    /// As a list of strings; a string is a list of one, and nothing is none.
    fn strings(&self, claims: &Value) -> Result<Vec<String>, String> {
        let wrong = || format!("expression '{}' must return a string or a list of strings", self.text);
        match self.eval("claims", claims)? {
            Value::Null => Ok(Vec::new()),
            Value::String(one) => Ok(Some(one).filter(|s| !s.is_empty()).into_iter().collect()),
            Value::Array(many) => many.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
            _ => Err(wrong()),
        }
    }

    fn string(&self, claims: &Value) -> Result<String, String> {
        let value = self.eval("claims", claims)?;
        value.as_str().map(str::to_owned).ok_or_else(|| format!("expression '{}' must return a string", self.text))
    }

    fn holds(&self, variable: &'static str, value: &Value, message: &str) -> Result<(), String> {
        match self.eval(variable, value)? {
            Value::Bool(true) => Ok(()),
            _ if message.is_empty() => Err(format!("validation expression '{}' failed", self.text)),
            _ => Err(format!("validation expression '{}' failed: {message}", self.text)),
        }
    }
}

/// The one variable that an expression sees.
struct Given<'a>(&'static str, &'a Value);

impl<'a> Activation<'a> for Given<'a> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        (name == self.0).then(|| Val::json(self.1))
    }
}

impl Authenticator {
    /// As the flags have it.
    pub fn of_flags(issuer: OidcIssuer) -> Authenticator {
        // Unless the name is an address, it carries the issuer, so that two issuers' users are never one; `-` turns that off.
        let prefix = match issuer.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if issuer.username_claim == "email" => String::new(),
            None => format!("{}#", issuer.url),
        };
        let claim_rules = issuer.required_claims.into_iter().map(|(claim, value)| ClaimRule::Value { claim, value });
        Authenticator {
            url: issuer.url,
            discovery_url: None,
            ca: issuer.ca,
            audiences: vec![issuer.client_id],
            claim_rules: claim_rules.collect(),
            username: Source::Claim { name: issuer.username_claim, prefix },
            groups: issuer.groups_claim.map(|name| Source::Claim { name, prefix: issuer.groups_prefix }),
            uid: None,
            extra: Vec::new(),
            user_rules: Vec::new(),
        }
    }

    /// The user that verified claims tell of, and whether they are to be believed at all.
    pub(crate) fn user_of(&self, claims: &Value) -> Result<UserInfo, String> {
        let user = UserInfo::new(self.name_of(claims)?, &[]);
        self.check_claims(claims)?;
        let uid = match &self.uid {
            None => String::new(),
            Some(Source::Expression(expression)) => expression.string(claims)?,
            Some(Source::Claim { name, .. }) => match text(claims, &[name]) {
                "" => return Err(format!("no claim {name:?}")),
                uid => uid.to_owned(),
            },
        };
        let mut user = UserInfo { uid, groups: self.groups_of(claims)?, ..user };
        for (key, expression) in &self.extra {
            let values = expression.strings(claims)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        let seen = crate::reviews::user_value(&user);
        self.user_rules.iter().try_for_each(|(rule, message)| rule.holds("user", &seen, message))?;
        Ok(user)
    }

    fn name_of(&self, claims: &Value) -> Result<String, String> {
        let (claim, prefix) = match &self.username {
            Source::Claim { name, prefix } => (name.as_str(), prefix),
            Source::Expression(expression) => {
                let name = expression.string(claims)?;
                return if name.is_empty() { Err("the user name is empty".into()) } else { Ok(name) };
            }
        };
        let name = text(claims, &[claim]);
        if name.is_empty() {
            return Err(format!("no claim {claim:?}"));
        }
        // As upstream: an address that was not verified is nobody's name.
        if claim == "email" && claims.get("email_verified").is_some_and(|v| v != &Value::Bool(true)) {
            return Err("email not verified".to_owned());
        }
        Ok(format!("{prefix}{name}"))
    }

    fn groups_of(&self, claims: &Value) -> Result<Vec<String>, String> {
        let (claim, prefix) = match &self.groups {
            None => return Ok(Vec::new()),
            Some(Source::Expression(expression)) => return expression.strings(claims),
            Some(Source::Claim { name, prefix }) => (name, prefix),
        };
        let one = claims.get(claim).and_then(Value::as_str).into_iter();
        let many = items(claims, &[claim]).iter().filter_map(Value::as_str);
        Ok(one.chain(many).map(|group| format!("{prefix}{group}")).collect())
    }

    fn check_claims(&self, claims: &Value) -> Result<(), String> {
        self.claim_rules.iter().try_for_each(|rule| match rule {
            ClaimRule::Value { claim, .. } if claims.get(claim).is_none() => Err(format!("required claim {claim} not present in ID token")),
            ClaimRule::Value { claim, value } => match text(claims, &[claim]) {
                got if got == value => Ok(()),
                got => Err(format!("required claim {claim} value does not match. Got = {got}, want = {value}")),
            },
            ClaimRule::Expression(expression, message) => expression.holds("claims", claims, message),
        })
    }
}
