//! Authentication and authorization: the one module that knows tokens, asked by every service.
//!
//! ```text
//! client port ── caller(headers) ──> Caller ── authorize(caller, need) ──> served, or Unauthenticated / Denied
//! peer port ──── forwarded(name, hash) ──> Caller ──┘        (the leader asks again, by its own file)
//! admin port ─── authorize_admin(headers)
//! ```
//!
//! It promises that a call which needs a scope is refused before anything of it is looked at further, that a token is judged again for
//! each operation, so that a withdrawn or expired one ends on open streams too, and that no token or session id is in what it says.
//! Without a tokens file everything is allowed: then the network is what protects the cluster, and the node says so when it starts.

mod portions;
mod tokens;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq as _;
use tonic::Status;
use tonic::codegen::http::{HeaderMap, header::AUTHORIZATION};
use tonic::metadata::MetadataMap;

pub use portions::{Portion, Portions, Resource};
pub use tokens::{Error, Grant, Scope, Tokens, hash_of};

use super::call::Operation;
use super::shares::Share;
use crate::env::Clock;
use crate::mutant::{self, Mutant};
use crate::types::{Access, List, Load, Refusal, RefusalKind, SessionId, Write};
use crate::wire;

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

/// The right that a call needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// To read this session.
    Read(&'a SessionId),
    /// To write or delete this session.
    Write(&'a SessionId),
    /// To be in the table of clients, as every writer must.
    Client,
    /// To see ids that start so.
    List(&'a str),
    /// To operate the cluster: status, events, backups, membership, leadership.
    Admin,
    /// To read what a node counts.
    Metrics,
}

impl<'a> Need<'a> {
    /// The rights that an operation on sessions needs, all of them; at least one.
    pub fn of(operation: &'a Operation) -> impl Iterator<Item = Self> {
        let (one, write, loads): (Option<Self>, Option<&Write>, &[Load]) = match operation {
            Operation::Write(write) if write.sessions().next().is_none() => (Some(Need::Client), None, &[]),
            Operation::Write(write) => (None, Some(write), &[]),
            Operation::Load(load) => (Some(Need::Read(&load.id)), None, &[]),
            Operation::List(List { prefix, .. }) => (Some(Need::List(prefix)), None, &[]),
            // It names one at least.
            Operation::LoadMany(many) => (None, None, many.loads()),
        };
        let judged = if mutant::is(Mutant::TransactionAuthorizedByFirstId) { 1 } else { usize::MAX };
        let of_write = write.into_iter().flat_map(Write::sessions).take(judged).map(|(id, access)| match access {
            Access::Read => Need::Read(id),
            Access::Write => Need::Write(id),
        });
        one.into_iter().chain(of_write).chain(loads.iter().map(|load| Need::Read(&load.id)))
    }

    fn scope(self) -> Scope {
        match self {
            Need::Read(_) => Scope::Read,
            Need::Write(_) | Need::Client => Scope::Write,
            Need::List(_) => Scope::List,
            Need::Admin => Scope::Admin,
            Need::Metrics => Scope::Metrics,
        }
    }

    /// The id, or the beginning of ids, that must be under one of the token's prefixes.
    fn of_ids(self) -> Option<&'a str> {
        match self {
            Need::Read(id) | Need::Write(id) => Some(id.as_str()),
            Need::List(prefix) => Some(prefix),
            Need::Client | Need::Admin | Need::Metrics => None,
        }
    }
}

/// An authenticated caller. Only [`Guard`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller(Who);

#[derive(Clone, PartialEq, Eq)]
enum Who {
    /// Nobody asks.
    Anyone,
    /// The holder of this token.
    Holder(Arc<Holder>),
    /// A caller authenticated by another node: the name of its token, and the token's hash. Without a hash only the name is checked.
    Forwarded(Arc<str>, Option<[u8; 32]>),
}

#[derive(PartialEq, Eq)]
struct Holder {
    name: Arc<str>,
    hash: [u8; 32],
}

impl Caller {
    /// Any caller.
    #[cfg(test)]
    pub fn anyone() -> Self {
        Self(Who::Anyone)
    }

    /// The holder of a token of this name.
    #[cfg(test)]
    pub fn of_token(name: &str) -> Self {
        Self(Who::Forwarded(name.into(), None))
    }

    /// The name that goes with a forwarded call; empty where nobody asks.
    pub fn principal(&self) -> &str {
        match &self.0 {
            Who::Anyone => "",
            Who::Holder(holder) => &holder.name,
            Who::Forwarded(name, _) => name,
        }
    }

    /// The hash of its token that goes with a forwarded call; empty where nobody asks.
    pub fn token_hash(&self) -> &[u8] {
        match &self.0 {
            Who::Holder(holder) => &holder.hash,
            Who::Forwarded(_, Some(hash)) => hash,
            Who::Anyone | Who::Forwarded(_, None) => &[],
        }
    }
}

impl Caller {
    /// The name of the token it shows; `None` where nobody asks for one.
    pub fn token(&self) -> Option<Arc<str>> {
        match &self.0 {
            Who::Anyone => None,
            Who::Holder(holder) => Some(holder.name.clone()),
            Who::Forwarded(name, _) => Some(name.clone()),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "caller:{:?}", self.principal())
    }
}

/// Decides, by the tokens in force. Cheap to clone.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    /// `None`: nobody asks.
    tokens: Option<RwLock<Arc<InForce>>>,
    /// Refused as unauthenticated, and as denied.
    refused: [AtomicU64; 2],
}

/// The share of each token, by the token's name.
pub type Shares = BTreeMap<Arc<str>, Arc<Share>>;

/// The tokens in force, and what each may hold.
struct InForce {
    tokens: Tokens,
    shares: Shares,
    /// Counts the changes, from 1.
    generation: u64,
}

impl InForce {
    fn new(tokens: Tokens, before: Option<&Self>) -> Self {
        let share = |grant: &Grant| {
            let before = before.and_then(|before| before.shares.get(&grant.name));
            (grant.name.clone(), Arc::new(Share::new(grant, before.map(|share| &**share))))
        };
        let shares = tokens.iter().map(share).collect();
        Self { tokens, shares, generation: before.map_or(1, |before| before.generation + 1) }
    }
}

impl Guard {
    /// Lets everyone do everything where `tokens` is `None`.
    pub fn new(tokens: Option<Tokens>, clock: Arc<dyn Clock>) -> Self {
        let tokens = tokens.map(|tokens| RwLock::new(Arc::new(InForce::new(tokens, None))));
        Self(Arc::new(Inner { clock, tokens, refused: Default::default() }))
    }

    /// Puts other tokens in force, for open streams too. Without effect where nobody asks.
    pub fn replace(&self, tokens: Tokens) {
        if let Some(in_force) = &self.0.tokens {
            let mut in_force = in_force.write().unwrap_or_else(PoisonError::into_inner);
            *in_force = Arc::new(InForce::new(tokens, Some(&**in_force)));
        }
    }

    /// Whether nobody asks.
    pub fn is_open(&self) -> bool {
        self.0.tokens.is_none()
    }

    /// Those of all tokens, and a number that changes with them; `None`: nobody asks.
    pub fn shares(&self) -> Option<(u64, Shares)> {
        let in_force = self.in_force()?;
        Some((in_force.generation, in_force.shares.clone()))
    }

    /// Calls refused so far as unauthenticated, and as denied.
    pub fn refused(&self) -> [u64; 2] {
        self.0.refused.each_ref().map(|refused| refused.load(Ordering::Relaxed))
    }

    /// The caller on the client port. Errors: `Unauthenticated`, as a status; nothing changed.
    pub fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        self.holder(metadata.as_ref()).map_err(|refusal| wire::status_from_refusal(&refusal))
    }

    /// The caller on the admin port. Errors: `Unauthenticated`; nothing changed.
    pub fn caller_of(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        self.holder(headers)
    }

    /// The caller, if the call is allowed. Errors: `Unauthenticated` or `Denied`, as a status; nothing changed.
    pub fn require(&self, metadata: &MetadataMap, need: Need<'_>) -> Result<Caller, Status> {
        let checked = self.holder(metadata.as_ref()).and_then(|caller| self.authorize(&caller, need).map(|()| caller));
        checked.map_err(|refusal| wire::status_from_refusal(&refusal))
    }

    /// Whether an HTTP request to the admin port may operate the cluster, by its `authorization: Bearer` header.
    ///
    /// Errors: `Unauthenticated` (401) or `Denied` (403), with a text that may be shown.
    pub fn authorize_admin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.authorize_headers(headers, Need::Admin)
    }

    /// Whether an HTTP request to the admin port may do what needs `need`. Errors: as of [`Guard::authorize_admin`].
    pub fn authorize_headers(&self, headers: &HeaderMap, need: Need<'_>) -> Result<(), Refusal> {
        let caller = self.holder(headers)?;
        self.authorize(&caller, need)
    }

    /// Whether calls that a node forwards are looked at. `authenticated`: the connection they come by proved to be a member's.
    ///
    /// Errors: `Unauthenticated`; nothing changed.
    pub fn admit_forwards(&self, authenticated: bool) -> Result<(), Refusal> {
        if self.is_open() || authenticated {
            return Ok(());
        }
        Err(self.unauthenticated("a node's word is taken only on a connection that proves its identity"))
    }

    /// The caller of a forwarded call, by the forwarding node's word: the name of the token, and its hash. Its rights are those of this node's
    /// own tokens. `may_lack_hash`: the node is of a release that sends none; the name alone decides then.
    pub fn forwarded(&self, principal: String, hash: &[u8], may_lack_hash: bool) -> Caller {
        if self.is_open() {
            return Caller(Who::Anyone);
        }
        let hash = match hash {
            [] if may_lack_hash => None,
            // What is none is the hash of no token.
            hash => Some(hash.try_into().unwrap_or_default()),
        };
        Caller(Who::Forwarded(principal.into(), hash))
    }

    /// Whether `caller` may do what needs `need`, now. Errors: `Unauthenticated`, the token is no longer good; `Denied`, it is good for
    /// other things. Nothing changed.
    pub fn authorize(&self, caller: &Caller, need: Need<'_>) -> Result<(), Refusal> {
        self.in_force().map_or(Ok(()), |in_force| self.judge(&in_force.tokens, caller, need))
    }

    /// The share of the caller's token, if the call is allowed all that it needs; `None`: no tokens file. Errors: `Unauthenticated` or
    /// `Denied`.
    pub fn admit<'n>(&self, caller: &Caller, needs: impl Iterator<Item = Need<'n>>) -> Result<Option<Arc<Share>>, Refusal> {
        let Some(in_force) = self.in_force() else { return Ok(None) };
        for need in needs {
            self.judge(&in_force.tokens, caller, need)?;
        }
        Ok(in_force.shares.get(caller.principal()).cloned())
    }

    /// The share of the caller's token, whatever it may call; `None`: no tokens file.
    pub fn share(&self, caller: &Caller) -> Option<Arc<Share>> {
        self.in_force()?.shares.get(caller.principal()).cloned()
    }

    fn judge(&self, tokens: &Tokens, caller: &Caller, need: Need<'_>) -> Result<(), Refusal> {
        let grant = match &caller.0 {
            Who::Anyone => None,
            Who::Holder(holder) => tokens.named(&holder.name).filter(|grant| bool::from(grant.hash.ct_eq(&holder.hash))),
            Who::Forwarded(name, _) if mutant::is(Mutant::ForwardUnchecked) && !name.is_empty() => return Ok(()),
            Who::Forwarded(name, None) => tokens.named(name),
            Who::Forwarded(name, Some(hash)) => match tokens.named(name) {
                Some(grant) if !bool::from(grant.hash.ct_eq(hash)) => {
                    return Err(self.unauthenticated(&format!(
                        "this node knows another token of this name; give all nodes the same tokens token={name:?}"
                    )));
                }
                known => known,
            },
        };
        let Some(grant) = grant else {
            return Err(match &caller.0 {
                Who::Forwarded(name, _) => self.unauthenticated(&format!(
                    "this node knows no token of this name; give all nodes the same tokens token={name:?}"
                )),
                _ => self.unauthenticated("the token is no longer valid"),
            });
        };
        self.check_expiry(grant)?;
        let scope = need.scope();
        // A caller that may take a backup may see every id; and one begins with a listing, for its revision.
        let included = matches!(scope, Scope::List | Scope::Metrics) && grant.has(Scope::Admin);
        if !grant.has(scope) && !included {
            return Err(self.denied(format!("the token lacks a scope token={:?} needs={scope}", grant.name)));
        }
        match need.of_ids() {
            Some(ids) if !grant.covers(ids) => {
                // The id stays out of it: a caller that may not use it should not read it in a log either.
                Err(self.denied(format!("the token is for ids with other beginnings token={:?} scope={scope}", grant.name)))
            }
            _ => Ok(()),
        }
    }

    fn holder(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(in_force) = self.in_force() else { return Ok(Caller(Who::Anyone)) };
        let tokens = &in_force.tokens;
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(self.unauthenticated("a token is needed: one header `authorization: Bearer TOKEN`"));
        };
        let text = value.to_str().unwrap_or_default();
        let (scheme, token) = text.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(self.unauthenticated("a token is needed: one header `authorization: Bearer TOKEN`"));
        }
        let hash = hash_of(token);
        let Some(grant) = tokens.with_hash(&hash) else { return Err(self.unauthenticated("the token is not known here")) };
        self.check_expiry(grant)?;
        Ok(Caller(Who::Holder(Arc::new(Holder { name: grant.name.clone(), hash }))))
    }

    fn check_expiry(&self, grant: &Grant) -> Result<(), Refusal> {
        let expired = grant.is_expired(self.0.clock.wall_ms());
        if expired && !mutant::is(Mutant::TokenExpiryIgnored) {
            return Err(self.unauthenticated(&format!("the token has expired token={:?}", grant.name)));
        }
        Ok(())
    }

    fn in_force(&self) -> Option<Arc<InForce>> {
        let tokens = self.0.tokens.as_ref()?;
        Some(tokens.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn unauthenticated(&self, message: &str) -> Refusal {
        self.0.refused[0].fetch_add(1, Ordering::Relaxed);
        Refusal::not_applied(RefusalKind::Unauthenticated, message)
    }

    fn denied(&self, message: String) -> Refusal {
        self.0.refused[1].fetch_add(1, Ordering::Relaxed);
        Refusal::not_applied(RefusalKind::Denied, message)
    }
}

#[cfg(test)]
mod tests;
