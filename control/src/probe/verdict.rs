//! From single probes to an opinion: a backend serves, or does not, and one probe alone changes nobody's mind. Pure.

/// What is thought of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judge {
    failures: u8,
    successes: u8,
    serves: Option<bool>,
    /// Probes in a row that said otherwise.
    against: u16,
}

/// Who has never answered may be on its way up, as all of a cluster is after a loss of power: it is given so many times as long.
const PATIENCE: u16 = 10;

impl Judge {
    /// Nothing is known. So many failures in a row say that it does not serve (0: nothing says so), so many answers that it does again.
    pub fn new(failures: u8, successes: u8) -> Self {
        Self {
            failures,
            successes,
            serves: None,
            against: 0,
        }
    }

    /// Whether it serves; none: nobody knows yet.
    pub fn serves(self) -> Option<bool> {
        self.serves
    }

    /// A probe went well or not. True: that changes the opinion.
    pub fn hear(&mut self, well: bool) -> bool {
        if self.serves == Some(well) {
            self.against = 0;
            return false;
        }
        let needed = match (self.serves, well) {
            (None, true) => 1,
            (_, true) => self.successes.into(),
            (_, false) if self.failures == 0 => return false,
            (None, false) => PATIENCE * u16::from(self.failures),
            (_, false) => self.failures.into(),
        };
        self.against = self.against.saturating_add(1);
        if self.against < needed {
            return false;
        }
        *self = Self {
            serves: Some(well),
            against: 0,
            ..*self
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opinions(judge: &mut Judge, heard: &[bool]) -> Vec<Option<bool>> {
        let after = |well: &bool| {
            judge.hear(*well);
            judge.serves()
        };
        heard.iter().map(after).collect()
    }

    #[test]
    fn it_takes_several_in_a_row() {
        let (yes, no) = (Some(true), Some(false));
        let mut judge = Judge::new(2, 3);
        let heard = [
            true, false, true, false, false, true, true, false, true, true, true,
        ];
        assert_eq!(
            opinions(&mut judge, &heard),
            [yes, yes, yes, yes, no, no, no, no, no, no, yes]
        );
    }

    #[test]
    fn who_is_not_up_yet_is_unknown_first() {
        let mut judge = Judge::new(2, 3);
        assert_eq!(opinions(&mut judge, &[false; 19]), [None; 19]);
        assert_eq!(
            opinions(&mut judge, &[false, true, true, true]),
            [Some(false), Some(false), Some(false), Some(true)]
        );
        let mut never = Judge::new(0, 1);
        assert_eq!(opinions(&mut never, &[false; 9]), [None; 9]);
    }

    proptest! {
        #[test]
        fn it_changes_only_after_so_many_in_a_row(failures in 1_u8..5, successes in 1_u8..5, heard in prop::collection::vec(prop::bool::weighted(0.3), 0..200)) {
            let mut judge = Judge::new(failures, successes);
            for (index, well) in heard.iter().enumerate() {
                let before = judge.serves();
                if judge.hear(*well) {
                    prop_assert_ne!(before, judge.serves());
                    prop_assert_eq!(judge.serves(), Some(*well));
                    let needed = match (*well, before) {
                        (true, None) => 1,
                        (true, _) => usize::from(successes),
                        (false, None) => 10 * usize::from(failures),
                        (false, _) => usize::from(failures),
                    };
                    prop_assert!(heard[..=index].iter().rev().take_while(|said| *said == well).count() >= needed);
                } else {
                    prop_assert_eq!(before, judge.serves());
                }
            }
        }
    }
}
