//! Static members: they come back under their name and keep their place.

use expect_test::expect;

use super::*;

#[test]
fn a_static_member_that_comes_back_keeps_its_assignment() {
    check(
        "join A static=s1 | join B static=s2 | at 6 | sync B | sync A gives=s1-1:a,s2-2:b | join B id= static=s2 | sync B | state | beat B id=s2-2 static=s2",
        expect![[r#"
            6s A is s1-1 in 1 range, leads s1-1 s2-2
            6s B is s2-2 in 1 range, s1-1 leads
            6s A got "a"
            6s B got "b"
            6s B is s2-3 in 1 range, s1-1 leads
            6s B got "b"
            6s Stable in 1 with 2
            6s B beat FENCED_INSTANCE_ID
        "#]],
    );
}

#[test]
fn a_static_leader_that_comes_back_does_not_assign_again() {
    let pair = "join A static=s1 | join B static=s2 | at 6 | sync B static=s2 | sync A static=s1 gives=s1-1:a,s2-2:b";
    check(
        &format!("{pair} | join A id= static=s1 v9 | sync A static=s1"),
        expect![[r#"
            6s A is s1-1 in 1 range, leads s1-1 s2-2
            6s B is s2-2 in 1 range, s1-1 leads
            6s A got "a"
            6s B got "b"
            6s A is s1-3 in 1 range, leads s1-3 s2-2, skips
            6s A got "a"
        "#]],
    );
    check(
        &format!("{pair} | join A id= static=s1 | sync A static=s1"),
        expect![[r#"
            6s A is s1-1 in 1 range, leads s1-1 s2-2
            6s B is s2-2 in 1 range, s1-1 leads
            6s A got "a"
            6s B got "b"
            6s A is s1-3 in 1 range, s1-1 leads
            6s A got "a"
        "#]],
    );
}

#[test]
fn the_older_self_of_a_static_member_is_fenced() {
    check(
        "join A static=s | at 1 | join A id= static=s | at 4 | beat A id=s-1 static=s gen=1 | sync A id=s-1 static=s gen=1 | commit A id=s-1 static=s gen=1 | join A id=s-1 static=s | beat X id=s-2 static=other gen=1",
        expect![[r#"
            1s A join FENCED_INSTANCE_ID
            3s A is s-2 in 1 range, leads s-2
            4s A beat FENCED_INSTANCE_ID
            4s A sync FENCED_INSTANCE_ID
            4s A commit FENCED_INSTANCE_ID
            4s A join FENCED_INSTANCE_ID
            4s X beat UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn a_static_member_that_comes_back_before_the_assignment_begins_the_rebalance_again() {
    check(
        "join A static=s1 | join B static=s2 | at 6 | sync B static=s2 | join B id= static=s2 | join A",
        expect![[r#"
            6s A is s1-1 in 1 range, leads s1-1 s2-2
            6s B is s2-2 in 1 range, s1-1 leads
            6s B sync FENCED_INSTANCE_ID
            6s A is s1-1 in 2 range, leads s1-1 s2-3
            6s B is s2-3 in 2 range, s1-1 leads
        "#]],
    );
}

#[test]
fn a_static_member_has_its_whole_session_to_come_back() {
    check(
        "join A | join B static=s session=30 | at 6 | sync B static=s | sync A gives=A-1:a,s-2:b | join A rebalance=5 meta=x | at 67 | state",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 s-2
            6s B is s-2 in 1 range, A-1 leads
            6s A got "a"
            6s B got "b"
            36s A is A-1 in 2 range, leads A-1
            67s Empty in 3 with 0
        "#]],
    );
    check(
        "join A rebalance=5 | join B static=s session=30 rebalance=5 | at 6 | sync B static=s | sync A gives=A-1:a,s-2:b | join A rebalance=5 | at 11 | sync A gives=A-1:a,s-2:b | state | join B id= static=s | sync B static=s",
        expect![[r#"
            5s A is A-1 in 1 range, leads A-1 s-2
            5s B is s-2 in 1 range, A-1 leads
            6s A got "a"
            6s B got "b"
            11s A is A-1 in 2 range, leads A-1 s-2
            11s A got "a"
            11s Stable in 2 with 2
            11s B is s-4 in 2 range, A-1 leads
            11s B got "b"
        "#]],
    );
}
