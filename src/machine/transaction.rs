//! Transactions: every operation is decided against the state before the entry; only if all succeed, all are stored (L47).

use super::Machine;
use super::rows::Effects;
use super::session::Moment;
use super::write::{Decision, Taken};
use crate::mutant::{self, Mutant};
use crate::types::{Aborted, Expiry, Operation, TooLarge, Transacted, Verdict};

impl Machine {
    /// All operations or none: an abort changes nothing at all, neither a counter nor a tombstone nor a deadline.
    pub(super) fn transact(&mut self, operations: &[Operation], moment: Moment, effects: &mut Effects) -> Verdict {
        match self.decide_all(operations, moment) {
            Ok(decisions) => {
                Verdict::Transacted(Transacted { results: self.carry_out_all(operations, decisions, moment, effects) })
            }
            Err((index, verdict)) => {
                if mutant::is(Mutant::TransactionStoresWhatCameBefore) {
                    let before = self.decide_all(&operations[..index], moment).unwrap_or_default();
                    self.carry_out_all(operations, before, moment, effects);
                }
                if mutant::is(Mutant::AbortMovesADeadline) {
                    operations.iter().for_each(|operation| drop(self.touch_session(operation.session().0, Expiry::Keep)));
                }
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                match verdict {
                    Verdict::BaseMismatch => Verdict::BaseMismatchAt { index },
                    verdict => Verdict::Aborted(Aborted { index, verdict: Box::new(verdict) }),
                }
            }
        }
    }

    fn carry_out_all(
        &mut self,
        operations: &[Operation],
        decisions: Vec<Decision<'_>>,
        moment: Moment,
        effects: &mut Effects,
    ) -> Vec<Verdict> {
        let decided = operations.iter().zip(decisions).map(|(operation, Decision { verdict, effect })| {
            self.carry_out(operation.session().0, effect, moment, effects);
            verdict
        });
        decided.collect()
    }

    /// The decisions on all operations; or the position of the first that fails, and the verdict on it. The takings of the ones before count
    /// for the ones after: bytes, rows that are dropped, room for new sessions, and the numbers of creations.
    fn decide_all<'o>(&self, operations: &'o [Operation], moment: Moment) -> Result<Vec<Decision<'o>>, (usize, Verdict)> {
        let mut taken = Taken::default();
        let decide = |(index, operation): (usize, &'o Operation)| {
            let moment = Moment { creation: taken.creations, ..moment };
            let decision = self.decide_operation(operation, moment, &taken).map_err(|verdict| (index, verdict))?;
            taken.add(operation, &decision.effect);
            let (now, limit) = (taken.rows, self.rules.sweep_rows_max);
            if now > limit {
                return Err((index, Verdict::TooLarge(TooLarge::Rows { now, limit })));
            }
            Ok(decision)
        };
        operations.iter().enumerate().map(decide).collect()
    }
}
