//! Random actions against the model, with restarts in between, so that a failure shrinks to a short story.

use proptest::prelude::*;
use quorate::testing::disk::{Crash, SimDisk};

use crate::storage_log::driver::{Action, Driver, Model};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![0..200_usize, 200..3000_usize], 0..4).prop_map(Action::Append),
        1 => any::<u8>().prop_map(Action::Vote),
        1 => (0..6_u64).prop_map(Action::Truncate),
        2 => (0..8_u64).prop_map(Action::Purge),
        1 => (0..4_u64).prop_map(Action::PurgeAhead),
        1 => Just(Action::Sync),
        1 => Just(Action::Forget),
        4 => Just(Action::Run),
        1 => Just(Action::Elapse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_shows_what_the_model_holds_now_and_after_every_restart(lives in prop::collection::vec(prop::collection::vec(action(), 0..20), 1..5)) {
        let mut disk = SimDisk::new();
        let mut model = Model::default();
        for (life, actions) in lives.iter().enumerate() {
            let mut driver = Driver::open(&disk, model, 10 * life as u64 + 1).expect("no fault is set");
            for action in actions {
                driver.act(action);
                prop_assert_eq!(Model::of(&driver.log).expect("nothing is damaged"), driver.model().clone());
            }
            driver.act(&Action::Sync);
            driver.act(&Action::Run);
            model = driver.model().clone();
            disk = if life % 2 == 0 { disk.kill() } else { disk.crash(Crash::Lost, 0) };
        }
        let driver = Driver::open(&disk, Model::default(), 99).expect("no fault is set");
        prop_assert_eq!(Model::of(&driver.log).expect("nothing is damaged"), model);
    }
}
