//! What the module remembers of one request: it lives as long as the request, whatever redirects happen.

use std::cell::{Cell, OnceCell, RefCell};

use crate::activity::InFlight;
use crate::balancer::Named;
use crate::fallback::Stage;
use crate::ffi::elsewhere::Detour;
use crate::site::Lookup;

/// The context of a request. All of it is empty at first and filled when it is needed.
#[derive(Default)]
pub(crate) struct Context {
    /// What the table says of the host. Main request only.
    pub(crate) lookup: OnceCell<Lookup>,
    /// `paas_role` has refused the request: what follows is its error page. Main request only.
    pub(crate) is_refused: Cell<bool>,
    /// The backend chosen last. Main request only.
    pub(crate) backend: RefCell<Option<Named>>,
    /// Counted as one of its site's requests until this is dropped. Main request only.
    pub(crate) in_flight: OnceCell<InFlight>,
    /// Sees the answers of the backends that this very request is sent to.
    pub(crate) detour: Detour,
    trouble: OnceCell<Box<Trouble>>,
}

impl Context {
    /// What few requests have.
    pub(crate) fn trouble(&self) -> &Trouble {
        self.trouble.get_or_init(Box::default)
    }

    /// The same, if this one has it.
    pub(crate) fn known_trouble(&self) -> Option<&Trouble> {
        self.trouble.get().map(|trouble| &**trouble)
    }
}

/// What is remembered of a request that is not answered at once.
#[derive(Default)]
pub(crate) struct Trouble {
    /// How far `paas_fallback` is.
    pub(crate) stage: RefCell<Stage>,
    /// How often it has asked.
    pub(crate) asked: Cell<u8>,
    /// Whether the attempt that brought the request to `paas_fallback` was sent.
    pub(crate) was_sent: Cell<Option<bool>>,
    /// Why the request was refused, in a word, and the number of that event.
    pub(crate) reason: RefCell<Option<Reason>>,
}

/// Why a request was refused.
pub(crate) struct Reason {
    /// A word: letters, digits and `-`.
    pub(crate) word: Box<str>,
    /// What an operator finds the event by in the logs.
    pub(crate) id: Option<Box<str>>,
}
