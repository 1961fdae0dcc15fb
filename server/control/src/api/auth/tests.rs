//! What is remembered of passwords that were right.

use super::*;

fn remembered() -> Remembered {
    Remembered {
        salt: [7; 32],
        right: VecDeque::new(),
    }
}

#[test]
fn right_passwords_are_remembered_for_a_while_and_not_for_others() {
    let mut remembered = remembered();
    let now = Instant::now();
    let mark = remembered.mark("one", "first");
    assert!(!remembered.knows(&mark, now));
    remembered.remember(mark, now);
    assert!(remembered.knows(&mark, now));
    // A name and a password are not one text.
    for (name, password) in [("one", "second"), ("onef", "irst"), ("on", "efirst")] {
        let other = remembered.mark(name, password);
        assert!(!remembered.knows(&other, now), "{name} {password}");
    }
    let end = now + REMEMBERED_FOR;
    assert!(remembered.knows(&mark, end - Duration::from_secs(1)));
    assert!(!remembered.knows(&mark, end));
}

#[test]
fn the_oldest_is_forgotten() {
    let mut remembered = remembered();
    let now = Instant::now();
    let first = remembered.mark("one", "0");
    for number in 0..=REMEMBERED_MAX {
        let mark = remembered.mark("one", &number.to_string());
        remembered.remember(mark, now);
    }
    assert_eq!(remembered.right.len(), REMEMBERED_MAX);
    assert!(!remembered.knows(&first, now));
}
