//! What is shown of a group: what its members have, and which events are not done.

use super::*;
use crate::groups::{Holding, Stage, Unacked};

const MANY: usize = 1_000;

fn all(group: &GroupState) -> Vec<Unacked> {
    let (page, next) = Unacked::page(group, 0, MANY, MANY);
    assert_eq!((page.len(), next), (group.counts().unacked, None));
    page
}

#[test]
fn events_that_are_not_done_are_shown_with_where_they_are() {
    let mut group = group(&[0, 0, 0, 0, 7, 7]);
    group.join(B);
    assert_eq!(all(&group), []);
    assert_eq!(group.next(A, 0).expect("one").sequence, 1);
    assert_eq!(take(&mut group, B, 0), [2, 3, 4, 5], "the second of a key waits for the first");
    group.acknowledge(B, 2, &nack(50), 1);
    group.acknowledge(B, 3, &reject(), 1);
    group.acknowledge(B, 4, &nack(0), 1);
    let shown: Vec<_> =
        all(&group).into_iter().map(|one| (one.sequence, one.attempt, one.failure, one.stage)).collect();
    let expected = [
        (1, 1, "", Stage::Unsent(A)),
        (2, 2, "no", Stage::Waiting { due: 51 }),
        (3, 1, "never", Stage::Burying),
        (4, 2, "no", Stage::Ready),
        (5, 1, "", Stage::Sent { member: B, deadline: 10_000 }),
    ];
    assert_eq!(shown, expected.map(|(sequence, attempt, failure, stage)| (sequence, attempt, failure.into(), stage)));
    group.acknowledge(B, 5, &Outcome::Ack, 1);
    assert_eq!(all(&group).len(), 4);
}

#[test]
fn events_that_are_not_done_are_shown_in_pages_after_so_many_looks() {
    let mut group = group(&[0; 10]);
    take(&mut group, A, 0);
    group.acknowledge(A, 3, &Outcome::Ack, 1);
    let page = |after, most, looks| {
        let (page, next) = Unacked::page(&group, after, most, looks);
        (page.into_iter().map(|one| one.sequence).collect::<Vec<_>>(), next)
    };
    assert_eq!(page(0, 4, MANY), (vec![1, 2, 4, 5], Some(5)));
    assert_eq!(page(5, 4, MANY), (vec![6, 7, 8, 9], Some(9)));
    assert_eq!(page(9, 4, MANY), (vec![10], None));
    assert_eq!(page(6, 4, MANY), (vec![7, 8, 9, 10], None), "exactly as many are left");
    assert_eq!(page(0, MANY, 9), (vec![1, 2, 4, 5, 6, 7, 8, 9, 10], None), "as many looks as there are");
    assert_eq!(page(0, MANY, 8), (vec![1, 2, 4, 5, 6, 7, 8, 9], Some(9)));
    assert_eq!(page(u64::MAX, MANY, MANY), (vec![], None));
}

#[test]
fn members_are_shown_with_what_they_have() {
    let mut group = group(&[0; 4]);
    let nothing = Holding { unsent: 0, unacked: 0, deadline: None, away_until: None };
    assert_eq!((Holding::of(&group, A), Holding::of(&group, B)), (Some(nothing), None));
    for now in [0, 500] {
        let delivery = group.next(A, now).expect("one");
        assert!(group.sent(A, delivery.sequence, now));
    }
    group.next(A, 500).expect("one");
    let holding = Holding { unsent: 1, unacked: 2, deadline: Some(10_000), ..nothing };
    assert_eq!(Holding::of(&group, A), Some(holding));
    group.acknowledge(A, 1, &Outcome::Ack, 600);
    assert_eq!(Holding::of(&group, A), Some(Holding { unacked: 1, deadline: Some(10_500), ..holding }));
    group.detach(A, 5_000, 700);
    let away = Holding { unsent: 0, unacked: 1, deadline: Some(10_500), away_until: Some(5_700) };
    assert_eq!(Holding::of(&group, A), Some(away));
}
