//! Placement: from a site's key and the backends to the backend that serves the site.
//!
//! Pure: which backends are usable right now (healthy, not tried yet) is the caller's to know and to say.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use crate::python27;
use crate::rendezvous::{self, Bid, WeightedBid};

/// How sites are spread over backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// Weighted rendezvous hashing: few sites move when backends come and go.
    #[default]
    Rendezvous,
    /// CPython 2.7's 64-bit hash of the key, modulo the number of configured backends.
    Python64,
    /// The same with the 32-bit hash.
    Python32,
}

/// What a backend may be given, by the operator's will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// In service.
    #[default]
    Active,
    /// Being emptied: as active for placement, because it goes on serving the sites that are awake on it. It wakes none: it
    /// answers requests for others by "not here", and the next one in the site's order is asked.
    Draining,
    /// Out of service: gets nothing.
    Disabled,
}

/// A word that names no [`Method`] or [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: write one of {words}")]
pub struct UnknownWord {
    what: &'static str,
    words: &'static str,
}

impl FromStr for Method {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "rendezvous" => Ok(Self::Rendezvous),
            "python64" => Ok(Self::Python64),
            "python32" => Ok(Self::Python32),
            _ => Err(UnknownWord {
                what: "placement method",
                words: "rendezvous, python64, python32",
            }),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rendezvous => "rendezvous",
            Self::Python64 => "python64",
            Self::Python32 => "python32",
        })
    }
}

impl FromStr for State {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word {
            "active" => Ok(Self::Active),
            "draining" => Ok(Self::Draining),
            "disabled" => Ok(Self::Disabled),
            _ => Err(UnknownWord {
                what: "backend's state",
                words: "active, draining, disabled",
            }),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

/// A backend's share of the sites, relative to the others': 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

/// A number that is no [`Weight`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a weight: write 1 to {max}", max = Weight::MAX)]
pub struct WeightError(u32);

impl Weight {
    /// The largest weight.
    pub const MAX: u32 = 10_000;
    /// The weight of a backend nothing is said about.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// A weight.
    ///
    /// # Errors
    /// If it is not from 1 to 10,000.
    pub fn new(weight: u32) -> Result<Self, WeightError> {
        let small = u16::try_from(weight).ok().filter(|_| weight <= Self::MAX);
        small
            .and_then(NonZeroU16::new)
            .map(Self)
            .ok_or(WeightError(weight))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get().into()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The placement in force: a method, and while it is being changed slowly, the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Placement {
    /// The method; during a slow change, the new one.
    pub method: Method,
    /// The slow change under way.
    pub change: Option<SlowChange>,
}

/// A slow change of method: sites go over one by one as the threshold rises, and back as it falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlowChange {
    /// The method before.
    pub from: Method,
    /// Sites whose own hash is below this are placed by the new method; `u64::MAX` means all of them.
    pub threshold: u64,
}

impl Placement {
    /// A placement that is not being changed.
    #[must_use]
    pub const fn fixed(method: Method) -> Self {
        Self {
            method,
            change: None,
        }
    }

    /// The method for the site whose key has this hash ([`rendezvous::key_hash`]).
    #[inline]
    #[must_use]
    pub fn method_for(&self, site_hash: u64) -> Method {
        match self.change {
            Some(change) if change.threshold != u64::MAX && site_hash >= change.threshold => {
                change.from
            }
            _ => self.method,
        }
    }
}

/// A backend as placement sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate<'a> {
    /// The bytes that stand for it.
    pub key: &'a [u8],
    /// Its share.
    pub weight: Weight,
    /// What it may be given.
    pub state: State,
}

/// The backends in their configured order; they are named by their index in it.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    members: Vec<Member>,
    /// All weights are equal, so draws can be compared without their logarithm.
    uniform: bool,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    key_hash: u64,
    weight: Weight,
    state: State,
}

impl<'a> FromIterator<Candidate<'a>> for Backends {
    fn from_iter<I: IntoIterator<Item = Candidate<'a>>>(candidates: I) -> Self {
        let member = |candidate: Candidate<'a>| Member {
            key_hash: rendezvous::key_hash(candidate.key),
            weight: candidate.weight,
            state: candidate.state,
        };
        let members: Vec<Member> = candidates.into_iter().map(member).collect();
        let uniform = members
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.weight == b.weight));
        Self { members, uniform }
    }
}

impl Backends {
    /// The backends, in their configured order.
    pub fn new<'a>(candidates: impl IntoIterator<Item = Candidate<'a>>) -> Self {
        candidates.into_iter().collect()
    }

    /// How many there are, whatever their state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The state of a backend.
    #[must_use]
    pub fn state(&self, index: usize) -> Option<State> {
        self.members.get(index).map(|member| member.state)
    }

    /// The backend for a site, as its index, or none if no backend may and can take it.
    ///
    /// `pin` is a backend that comes before placement, unless it is disabled or not usable. Of the others all that are not
    /// disabled are candidates, in the order of the site's placement. `usable` says which can take a request now; a retry
    /// calls again with a `usable` that excludes what was tried. The python methods count every configured backend; if the
    /// one they name is disabled or not usable, the rendezvous order of the others decides.
    #[must_use]
    pub fn choose(
        &self,
        site_key: &[u8],
        pin: Option<usize>,
        placement: &Placement,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if let Some(pinned) = self.pinned(pin, &usable) {
            return Some(pinned);
        }
        let site_hash = rendezvous::key_hash(site_key);
        let method = placement.method_for(site_hash);
        self.by_python(method, site_key, &usable)
            .or_else(|| self.by_rendezvous(rendezvous::slot(site_hash), &usable))
    }

    /// All backends that `choose` would give a site one after the other, if each failed in turn.
    #[must_use]
    pub fn preference(
        &self,
        site_key: &[u8],
        pin: Option<usize>,
        placement: &Placement,
    ) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.len());
        while let Some(next) =
            self.choose(site_key, pin, placement, |index| !order.contains(&index))
        {
            order.push(next);
        }
        order
    }

    /// The backend that a python method names for a site, whatever its state; none by rendezvous.
    #[must_use]
    pub fn named(&self, site_key: &[u8], placement: &Placement) -> Option<usize> {
        let method = placement.method_for(rendezvous::key_hash(site_key));
        self.number(method, site_key)
    }

    #[inline]
    pub(crate) fn pinned(
        &self,
        pin: Option<usize>,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        pin.filter(|&index| self.is_in_service(index) && usable(index))
    }

    fn is_in_service(&self, index: usize) -> bool {
        self.state(index)
            .is_some_and(|state| state != State::Disabled)
    }

    /// The backend a python method names, if that is the method and it is in service and usable.
    #[inline]
    pub(crate) fn by_python(
        &self,
        method: Method,
        key: &[u8],
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let index = self.number(method, key)?;
        (self.is_in_service(index) && usable(index)).then_some(index)
    }

    #[inline]
    fn number(&self, method: Method, key: &[u8]) -> Option<usize> {
        let hash = match method {
            Method::Rendezvous => return None,
            Method::Python64 => python27::hash64(key),
            Method::Python32 => python27::hash32(key).into(),
        };
        let n = NonZeroU32::new(u32::try_from(self.len()).ok()?)?;
        usize::try_from(python27::floor_mod(hash, n)).ok()
    }

    /// The first one in the rendezvous order of a slot that is in service and usable.
    #[inline]
    pub(crate) fn by_rendezvous(&self, slot: u32, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if self.uniform {
            let bid = |member: &Member| Bid::new(slot, member.key_hash);
            self.winner(usable, bid, Bid::beats)
        } else {
            let bid = |member: &Member| WeightedBid::new(slot, member.key_hash, member.weight);
            self.winner(usable, bid, WeightedBid::beats)
        }
    }

    #[inline]
    fn winner<B: Copy>(
        &self,
        usable: impl Fn(usize) -> bool,
        bid: impl Fn(&Member) -> B,
        beats: impl Fn(B, B) -> bool,
    ) -> Option<usize> {
        let mut winner: Option<(usize, B)> = None;
        for (index, member) in self.members.iter().enumerate() {
            if member.state == State::Disabled || !usable(index) {
                continue;
            }
            let bid = bid(member);
            if winner.is_none_or(|(_, best)| beats(bid, best)) {
                winner = Some((index, bid));
            }
        }
        winner.map(|(index, _)| index)
    }
}
