//! The simulated operator, who redrives and discards dead letters.

use super::{database::LetterRowState, world::World};

impl World {
    /// Repairs and redrives a dead letter, or discards it.
    pub(super) fn operate(&mut self) {
        let dead = self.database.dead();
        if dead.is_empty() {
            return;
        }
        let seq = dead[usize::try_from(self.random.below(dead.len() as u64)).unwrap()];
        if self.random.chance(60) {
            if self.random.chance(70) {
                self.poison.remove(&seq);
                self.tough.remove(&seq);
            }
            self.sometimes.redriven += 1;
            self.database.redrive(seq, self.now);
        } else {
            let key = self.database.row(seq).key;
            let behind = self.database.letters.iter().any(|(other, letter)| {
                letter.state == LetterRowState::Held
                    && key.is_some()
                    && self.database.row(*other).key == key
            });
            self.sometimes.discarded_with_others_behind += u64::from(behind);
            self.database.discard(seq, self.now);
        }
    }
}
