//! [`Idle`]: what is kept for the next request, by peer: which one it gets, and which ones are closed.
//!
//! Pure: what is kept may be anything (nginx's connections, in the module), and time is an argument. However many peers there
//! are, keeping one and taking one cost the same.

use std::collections::HashMap;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// At most this many in all.
    pub total: usize,
    /// At most this many of one peer.
    pub per_peer: usize,
}

/// What is idle, of all peers. Of a peer the one used last is taken first; when there are too many, the one that has been idle
/// for longest goes, first of the same peer, then of all.
#[derive(Debug)]
pub struct Idle<T> {
    limits: Limits,
    slots: Slots<T>,
    /// Slots without a value.
    free: Vec<u32>,
    /// All of them by age.
    all: Chain,
    peers: Vec<Peer>,
    /// How often the peers were numbered anew.
    numbering: u32,
    /// Names are addresses that the operator gave: nobody chooses them so that they collide.
    by_name: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
}

/// Where something is kept. It stays the same until it is taken or removed, and is then used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u32);

impl Ticket {
    /// The tickets that there can be with a limit of `total` in all, by their index.
    pub fn all(total: usize) -> impl Iterator<Item = Self> {
        (0..NONE).take(total).map(Self)
    }

    /// A small number: the tickets in use are below the limit in all.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A peer. Whoever asked for it long ago may find that it is not known any more: then nothing is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerId {
    number: u32,
    numbering: u32,
}

/// What is known of each slot. Of many slots each is seldom looked at: what lies close together is in the caches for longer.
#[derive(Debug)]
struct Slots<T> {
    value: Vec<Option<T>>,
    peer: Vec<u32>,
    since: Vec<u64>,
    in_all: Vec<Links>,
    in_peer: Vec<Links>,
}

#[derive(Debug, Default)]
struct Peer {
    chain: Chain,
    count: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// The neighbours of a slot in one chain.
#[derive(Debug, Clone, Copy)]
struct Links {
    older: u32,
    newer: u32,
}

/// A chain of slots by age.
#[derive(Debug, Clone, Copy)]
struct Chain {
    oldest: u32,
    newest: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl Links {
    const NONE: Self = Self {
        older: NONE,
        newer: NONE,
    };
}

impl<T> Slots<T> {
    /// A new one, without a value.
    fn push(&mut self) -> u32 {
        // There are fewer than `total` of them.
        let at = self.value.len() as u32;
        self.value.push(None);
        self.peer.push(NONE);
        self.since.push(0);
        self.in_all.push(Links::NONE);
        self.in_peer.push(Links::NONE);
        at
    }

    fn set(&mut self, at: u32, value: T, peer: u32, since: u64) {
        let at = at as usize;
        if let (Some(v), Some(p), Some(s)) = (
            self.value.get_mut(at),
            self.peer.get_mut(at),
            self.since.get_mut(at),
        ) {
            (*v, *p, *s) = (Some(value), peer, since);
        }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            value: Vec::new(),
            peer: Vec::new(),
            since: Vec::new(),
            in_all: Vec::new(),
            in_peer: Vec::new(),
        }
    }
}

impl<T> Idle<T> {
    /// Nothing yet. `per_peer` above `total` means `total`.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        // Tickets are numbers of 32 bits.
        let total = limits.total.min(NONE as usize - 1);
        Self {
            limits: Limits {
                total,
                per_peer: limits.per_peer.min(total),
            },
            slots: Slots::default(),
            free: Vec::new(),
            all: Chain::default(),
            peers: Vec::new(),
            numbering: 0,
            by_name: HashMap::default(),
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.value.len() - self.free.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer with this name.
    pub fn peer(&mut self, name: &[u8]) -> PeerId {
        let number = match self.by_name.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        PeerId {
            number,
            numbering: self.numbering,
        }
    }

    /// Whether this peer is still known by its number.
    #[must_use]
    pub fn knows(&self, peer: PeerId) -> bool {
        peer.numbering == self.numbering
    }

    /// Keeps something of a peer, idle since `now`, which is never less than it was before. Returns what must go for it: at
    /// most one, or what was to be kept itself if nothing may be.
    pub fn put(&mut self, peer: PeerId, now: u64, value: T) -> Result<(Ticket, Option<T>), T> {
        if self.limits.per_peer == 0 || !self.knows(peer) {
            return Err(value);
        }
        let peer = peer.number;
        let crowded = match self.peers.get(peer as usize) {
            Some(found) if found.count as usize >= self.limits.per_peer => Some(found.chain.oldest),
            _ if self.len() >= self.limits.total => Some(self.all.oldest),
            _ => None,
        };
        let displaced = crowded.and_then(|oldest| self.remove(Ticket(oldest)));
        let at = self.free.pop().unwrap_or_else(|| self.slots.push());
        self.slots.set(at, value, peer, now);
        append(&mut self.slots.in_all, &mut self.all, at);
        if let Some(peer) = self.peers.get_mut(peer as usize) {
            append(&mut self.slots.in_peer, &mut peer.chain, at);
            peer.count += 1;
        }
        Ok((Ticket(at), displaced))
    }

    /// The one of this peer that was used last.
    #[must_use]
    pub fn newest(&self, peer: PeerId) -> Option<&T> {
        if !self.knows(peer) {
            return None;
        }
        let newest = self.peers.get(peer.number as usize)?.chain.newest;
        self.slots.value.get(newest as usize)?.as_ref()
    }

    /// Takes the one of this peer that was used last.
    pub fn take(&mut self, peer: PeerId) -> Option<T> {
        if !self.knows(peer) {
            return None;
        }
        let newest = self.peers.get(peer.number as usize)?.chain.newest;
        self.remove(Ticket(newest))
    }

    /// Takes what is kept under a ticket, if anything still is.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let value = self.slots.value.get_mut(ticket.index())?.take()?;
        detach(&mut self.slots.in_all, &mut self.all, ticket.0);
        let peer = self.slots.peer.get(ticket.index()).copied();
        if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(peer as usize)) {
            detach(&mut self.slots.in_peer, &mut peer.chain, ticket.0);
            peer.count -= 1;
        }
        self.free.push(ticket.0);
        Some(value)
    }

    /// Since when the one that has been idle for longest is.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.slots.since.get(self.all.oldest as usize).copied()
    }

    /// Takes one that has been idle since `time` or longer.
    pub fn take_idle_since(&mut self, time: u64) -> Option<T> {
        if self.oldest()? > time {
            return None;
        }
        self.remove(Ticket(self.all.oldest))
    }

    /// Takes all that is kept of the peers that are `unwanted`.
    pub fn take_of(&mut self, mut unwanted: impl FnMut(&[u8]) -> bool) -> Vec<T> {
        let gone: Vec<u32> = self
            .by_name
            .iter()
            .filter(|(name, _)| unwanted(name))
            .map(|(_, peer)| *peer)
            .collect();
        let mut taken = Vec::new();
        for peer in gone {
            while let Some(newest) = self.peers.get(peer as usize).map(|peer| peer.chain.newest) {
                match self.remove(Ticket(newest)) {
                    Some(value) => taken.push(value),
                    None => break,
                }
            }
        }
        taken
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        // Peers that come and go must not fill the memory: those of which nothing is kept make room.
        if self.peers.len() >= 2 * self.limits.total + 64 {
            self.forget_peers_without_any();
        }
        let number = self.peers.len() as u32;
        self.peers.push(Peer::default());
        self.by_name.insert(name.into(), number);
        number
    }

    fn forget_peers_without_any(&mut self) {
        self.numbering = self.numbering.wrapping_add(1);
        let mut kept = Vec::new();
        let mut numbers = vec![NONE; self.peers.len()];
        self.by_name.retain(|_, number| {
            let at = *number as usize;
            match (self.peers.get_mut(at), numbers.get_mut(at)) {
                (Some(peer), Some(renumbered)) if peer.count > 0 => {
                    *number = kept.len() as u32;
                    *renumbered = *number;
                    kept.push(std::mem::take(peer));
                    true
                }
                _ => false,
            }
        });
        for peer in &mut self.slots.peer {
            if let Some(number) = numbers.get(*peer as usize) {
                *peer = *number;
            }
        }
        self.peers = kept;
    }
}

/// Puts a slot at the young end of a chain.
fn append(links: &mut [Links], chain: &mut Chain, at: u32) {
    let older = chain.newest;
    if let Some(own) = links.get_mut(at as usize) {
        *own = Links { older, newer: NONE };
    }
    match links.get_mut(older as usize) {
        Some(older) => older.newer = at,
        None => chain.oldest = at,
    }
    chain.newest = at;
}

/// Takes a slot out of a chain.
fn detach(links: &mut [Links], chain: &mut Chain, at: u32) {
    let Some(Links { older, newer }) = links.get(at as usize).copied() else {
        return;
    };
    match links.get_mut(older as usize) {
        Some(older) => older.newer = newer,
        None => chain.oldest = newer,
    }
    match links.get_mut(newer as usize) {
        Some(newer) => newer.older = older,
        None => chain.newest = older,
    }
}
