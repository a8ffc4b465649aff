//! Which watches an id concerns, by maps of prefixes and ids: a change is handed to those it concerns, and the others are not looked at.

use std::collections::{BTreeMap, HashMap};

use crate::types::{Selector, SessionId};

/// Watches, by what they are about.
#[derive(Default)]
pub struct Prefixes {
    prefixes: HashMap<Box<str>, Vec<u64>>,
    /// How many prefixes there are of each length.
    lengths: BTreeMap<usize, usize>,
    ids: HashMap<SessionId, Vec<u64>>,
}

impl Prefixes {
    pub fn add(&mut self, key: u64, selector: &Selector) {
        match selector {
            Selector::Prefix(prefix) => {
                let keys = self.prefixes.entry(prefix.as_str().into()).or_default();
                if keys.is_empty() {
                    *self.lengths.entry(prefix.len()).or_default() += 1;
                }
                keys.push(key);
            }
            Selector::Ids(ids) => ids.iter().for_each(|id| self.ids.entry(id.clone()).or_default().push(key)),
        }
    }

    pub fn remove(&mut self, key: u64, selector: &Selector) {
        match selector {
            Selector::Prefix(prefix) => {
                let Some(keys) = self.prefixes.get_mut(prefix.as_str()) else { return };
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.prefixes.remove(prefix.as_str());
                    if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                        *count -= 1;
                    }
                    self.lengths.retain(|_, count| *count > 0);
                }
            }
            Selector::Ids(ids) => {
                for id in ids {
                    let Some(keys) = self.ids.get_mut(id) else { continue };
                    keys.retain(|other| *other != key);
                    if keys.is_empty() {
                        self.ids.remove(id);
                    }
                }
            }
        }
    }

    /// Calls `f` with each watch that the id concerns.
    pub fn each(&self, id: &SessionId, mut f: impl FnMut(u64)) {
        let text = id.as_str();
        for length in self.lengths.keys() {
            let Some(beginning) = text.get(..*length) else { continue };
            self.prefixes.get(beginning).into_iter().flatten().for_each(|key| f(*key));
        }
        self.ids.get(id).into_iter().flatten().for_each(|key| f(*key));
    }

    /// Whether it concerns any.
    pub fn concerns(&self, id: &SessionId) -> bool {
        let mut concerns = false;
        self.each(id, |_| concerns = true);
        concerns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        SessionId::new(text).expect("short")
    }

    #[test]
    fn an_id_concerns_those_whose_prefix_it_has_and_those_that_name_it() {
        let prefix = |text: &str| Selector::Prefix(text.to_owned());
        let selectors =
            [prefix(""), prefix("a/"), prefix("a/"), prefix("b"), prefix("é"), Selector::of_ids(vec![id("a/1"), id("é2")])];
        let mut prefixes = Prefixes::default();
        for (key, selector) in (0..).zip(&selectors) {
            prefixes.add(key, selector);
        }
        for text in ["", "a", "a/", "a/1", "b", "bb", "é", "é2", "aé", "c"] {
            let mut found = Vec::new();
            prefixes.each(&id(text), |key| found.push(key));
            found.sort_unstable();
            let expected: Vec<u64> = (0..).zip(&selectors).filter(|(_, one)| one.matches(&id(text))).map(|(key, _)| key).collect();
            assert_eq!(found, expected, "{text}");
        }
        for (key, selector) in (0..).zip(&selectors) {
            prefixes.remove(key, selector);
        }
        assert!(
            !prefixes.concerns(&id("a/1"))
                && prefixes.lengths.is_empty()
                && prefixes.prefixes.is_empty()
                && prefixes.ids.is_empty()
        );
    }
}
