//! Values that only functions can look into.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tiphys_meta::Quantity;

use super::authz::{AuthorizerVal, Decision, PathCheck, ResourceCheck};
use super::format::Format;
use super::semver::Semver;
use super::url::Url;
use crate::types::Type;

#[derive(Clone)]
pub enum Opaque {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Arc<Url>),
    Format(&'static Format),
    Semver(Arc<Semver>),
    Authorizer(AuthorizerVal),
    PathCheck(Arc<PathCheck>),
    GroupCheck(AuthorizerVal, Arc<str>),
    ResourceCheck(Arc<ResourceCheck>),
    Decision(Arc<Decision>),
}

impl Opaque {
    pub(crate) fn type_of(&self) -> Type {
        match self {
            Opaque::Quantity(_) => Type::structure("kubernetes.Quantity"),
            Opaque::Ip(_) => Type::opaque("net.IP"),
            Opaque::Cidr(..) => Type::opaque("net.CIDR"),
            Opaque::Url(_) => Type::structure("kubernetes.URL"),
            Opaque::Format(_) => Type::structure("kubernetes.NamedFormat"),
            Opaque::Semver(_) => Type::structure("kubernetes.Semver"),
            Opaque::Authorizer(_) => Type::structure("kubernetes.authorization.Authorizer"),
            Opaque::PathCheck(_) => Type::structure("kubernetes.authorization.PathCheck"),
            Opaque::GroupCheck(..) => Type::structure("kubernetes.authorization.GroupCheck"),
            Opaque::ResourceCheck(_) => Type::structure("kubernetes.authorization.ResourceCheck"),
            Opaque::Decision(_) => Type::structure("kubernetes.authorization.Decision"),
        }
    }

    /// Addresses have the size of their bytes; everything else counts as one.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Opaque::Ip(ip) | Opaque::Cidr(ip, _) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            _ => 1,
        }
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Opaque) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, n), Opaque::Cidr(b, m)) => a == b && n == m,
            (Opaque::Url(a), Opaque::Url(b)) => a == b,
            (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
            (Opaque::Semver(a), Opaque::Semver(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opaque::Quantity(q) => write!(f, "{q}"),
            Opaque::Ip(ip) => write!(f, "{ip}"),
            Opaque::Cidr(ip, bits) => write!(f, "{ip}/{bits}"),
            other => f.write_str(&other.type_of().runtime_name()),
        }
    }
}
