//! Leases of turns: one writer at a time for one session, known by a fence (laws L45, L46).
//!
//! ```text
//! write with:      no fence    the lease's fence    another fence
//! a lease lives    Leased      executed             Fenced
//! none lives       executed    Fenced               Fenced
//! ```
//!
//! A lease lives while its deadline is beyond machine time, swept or not. It knows no session: that may come and go meanwhile.

use super::Machine;
use super::rows::Effects;
use super::session::Moment;
use super::tables::lease_text_bytes;
use crate::mutant::{self, Mutant};
use crate::types::{Fence, Holder, Lease, LeaseTtl, Lost, Renewals, SessionId, Verdict};

impl Machine {
    /// The lease of a session, if one lives at machine time.
    pub fn lease(&self, id: &SessionId) -> Option<&Lease> {
        self.tables.leases.get(id).map(|kept| &kept.value).filter(|lease| self.lives(lease))
    }

    pub(super) fn lives(&self, lease: &Lease) -> bool {
        lease.deadline_ms > self.now_ms || mutant::is(Mutant::LeaseLivesUntilSwept)
    }

    /// Whether a write with this fence, or with none, may change the session, as the module draws. Asked before all else (L45).
    pub(super) fn check_fence(&self, id: &SessionId, fence: Option<Fence>) -> Result<(), Verdict> {
        match (self.lease(id), fence) {
            (None, None) => Ok(()),
            (Some(lease), Some(fence)) if lease.fence == fence || mutant::is(Mutant::FenceNotCompared) => Ok(()),
            (Some(_), None) if mutant::is(Mutant::UnfencedWriteUnderALease) => Ok(()),
            (None, Some(_)) if mutant::is(Mutant::FenceWithoutALease) => Ok(()),
            (Some(Lease { holder, deadline_ms, .. }), None) => {
                Err(Verdict::Leased { holder: holder.clone(), deadline_ms: *deadline_ms })
            }
            (lease, Some(_)) => Err(Verdict::Fenced { current: lease.map(|lease| lease.fence) }),
        }
    }

    /// Grants the lease under a number that none had before: the index of the entry (L46).
    pub(super) fn acquire_lease(
        &mut self,
        id: &SessionId,
        holder: &Holder,
        ttl: LeaseTtl,
        steal: bool,
        moment: Moment,
        effects: &mut Effects,
    ) -> Verdict {
        if let Some(Lease { holder, deadline_ms, .. }) = self.lease(id).filter(|_| !steal) {
            return Verdict::LeaseHeld { holder: holder.clone(), deadline_ms: *deadline_ms };
        }
        let (fence, deadline_ms) = (Fence(moment.revision.0), self.lease_until(ttl));
        let lease = Lease { fence, holder: holder.clone(), deadline_ms };
        if !self.has_room_for_lease(id, &lease) {
            return Verdict::TooManyLeases;
        }
        self.tables.put_lease(id, lease, effects);
        self.keep_idle(id);
        Verdict::LeaseGranted { fence, deadline_ms }
    }

    /// Renews each lease that lives under its fence. None is shortened, and none that is lost comes back (L46).
    pub(super) fn renew_leases(&mut self, renewals: &Renewals, ttl: LeaseTtl, effects: &mut Effects) -> Verdict {
        let until_ms = self.lease_until(ttl);
        let mut lost = Vec::new();
        for (position, (id, fence)) in renewals.as_slice().iter().enumerate() {
            let Some(lease) = self.lease(id).filter(|lease| lease.fence == *fence) else {
                lost.push(position);
                continue;
            };
            let shortens = lease.deadline_ms > until_ms && !mutant::is(Mutant::RenewalShortens);
            if !shortens {
                let lease = Lease { deadline_ms: until_ms, ..lease.clone() };
                self.tables.put_lease(id, lease, effects);
            }
            self.keep_idle(id);
        }
        Verdict::LeasesRenewed { deadline_ms: until_ms, lost: Lost::at(lost) }
    }

    pub(super) fn release_lease(&mut self, id: &SessionId, fence: Fence, effects: &mut Effects) -> Verdict {
        if self.lease(id).is_none_or(|lease| lease.fence != fence) {
            return Verdict::LeaseLost;
        }
        self.tables.remove_lease(id, effects);
        Verdict::LeaseReleased
    }

    fn lease_until(&self, ttl: LeaseTtl) -> u64 {
        self.now_ms.saturating_add(ttl.millis().min(self.rules.lease_ttl_ms_max))
    }

    fn has_room_for_lease(&self, id: &SessionId, lease: &Lease) -> bool {
        let bytes = |lease| self.rules.lease_bytes.saturating_add(lease_text_bytes(id, lease));
        let old_bytes = self.tables.leases.get(id).map_or(0, |old| bytes(&old.value));
        let after = (self.tables.lease_bytes(self.rules) - old_bytes).saturating_add(bytes(lease));
        after <= self.rules.leases_bytes_max || mutant::is(Mutant::LeasesUncounted)
    }

    /// An idle session lives on for its time after the lease, at least (L44).
    fn keep_idle(&mut self, id: &SessionId) {
        let super::write::Found::Live(session) = self.find(id) else { return };
        let Some(idle_ms) = session.idle_ms else { return };
        let until_ms = self.idle_until(id, idle_ms);
        if session.deadline_ms.is_some_and(|deadline_ms| deadline_ms >= until_ms) {
            return;
        }
        let mut next = session.clone();
        next.deadline_ms = Some(until_ms);
        self.tables.touch_session(id, next);
    }

    /// When an idle session that is used now expires: its time after now, or after the lease that lives.
    pub(super) fn idle_until(&self, id: &SessionId, idle_ms: u64) -> u64 {
        let from_ms = self.lease(id).map_or(self.now_ms, |lease| lease.deadline_ms);
        from_ms.saturating_add(idle_ms)
    }
}
