//! Who is in a group, in which generation, and who waits for whom.

use expect_test::expect;

use super::*;

#[test]
fn members_gather_then_the_first_leads_and_assigns() {
    check(
        &format!("{PAIR} | state"),
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            6s A got "a"
            6s B got "b"
            6s Stable in 1 with 2
        "#]],
    );
}

#[test]
fn each_newcomer_prolongs_the_gathering_up_to_the_rebalance_timeout() {
    check(
        "join A rebalance=7 | at 2 | join B rebalance=7 | at 5 | join C rebalance=7 | at 6 | join D rebalance=7 | at 20",
        expect![[r#"
            7s A is A-1 in 1 range, leads A-1 B-2 C-3 D-4
            7s B is B-2 in 1 range, A-1 leads
            7s C is C-3 in 1 range, A-1 leads
            7s D is D-4 in 1 range, A-1 leads
        "#]],
    );
}

#[test]
fn a_group_that_became_empty_gathers_again() {
    check_pair(
        "leave A B | state | join C | at 8 | state | at 9",
        expect![[r#"
            6s leave ok ok
            6s Empty in 2 with 0
            8s PreparingRebalance in 2 with 1
            9s C is C-3 in 3 range, leads C-3
        "#]],
    );
}

#[test]
fn a_new_member_is_sent_for_an_id_and_comes_back_with_it() {
    check(
        "join A v4 | state | join A v4 | at 3",
        expect![[r#"
            0s A join MEMBER_ID_REQUIRED
            0s Empty in 0 with 0
            3s A is A-1 in 1 range, leads A-1
        "#]],
    );
}

#[test]
fn an_id_that_was_given_out_is_waited_for_one_session() {
    check_pair(
        "join C v4 session=8 | join A | join B | state | at 14",
        expect![[r#"
            6s C join MEMBER_ID_REQUIRED
            6s PreparingRebalance in 1 with 2
            14s A is A-1 in 2 range, leads A-1 B-2
            14s B is B-2 in 2 range, A-1 leads
        "#]],
    );
    check_pair(
        "join C v4 session=8 | at 13 | beat A | beat B | at 15 | join C",
        expect![[r#"
            6s C join MEMBER_ID_REQUIRED
            13s A beat ok
            13s B beat ok
            15s C join UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn who_is_not_a_member_is_told_so() {
    check_pair(
        "join X id=X-9 | sync X id=X-9 gen=1 | beat X id=X-9 gen=1 | leave X-9 | commit X id=X-9 gen=1 | beat A gen=0 | sync A gen=2 | commit B gen=7",
        expect![[r#"
            6s X join UNKNOWN_MEMBER_ID
            6s X sync UNKNOWN_MEMBER_ID
            6s X beat UNKNOWN_MEMBER_ID
            6s leave UNKNOWN_MEMBER_ID
            6s X commit UNKNOWN_MEMBER_ID
            6s A beat ILLEGAL_GENERATION
            6s A sync ILLEGAL_GENERATION
            6s B commit ILLEGAL_GENERATION
        "#]],
    );
}

#[test]
fn timeouts_names_and_protocols_are_checked_at_the_door() {
    check(
        "join A session=5 | join A session=1801 | join A knows= | join A type= | join A knows=range,rr | join B knows=sticky | join B type=connect | join B knows=rr | at 6",
        expect![[r#"
            0s A join INVALID_SESSION_TIMEOUT
            0s A join INVALID_SESSION_TIMEOUT
            0s A join INCONSISTENT_GROUP_PROTOCOL
            0s A join INCONSISTENT_GROUP_PROTOCOL
            0s B join INCONSISTENT_GROUP_PROTOCOL
            0s B join INCONSISTENT_GROUP_PROTOCOL
            6s A is A-5 in 1 rr, leads A-5 B-8
            6s B is B-8 in 1 rr, A-5 leads
        "#]],
    );
    let mut nameless = Play::new(GroupConfig::default());
    nameless.group = Group::new(GroupId::new("").unwrap(), GroupConfig::default(), Timestamp(0));
    nameless.step("join A");
    expect![[r#"
        0s A join INVALID_GROUP_ID
    "#]]
    .assert_eq(&nameless.out);
    assert!(GroupId::new(&"x".repeat(40_000)).is_none());
}

#[test]
fn the_protocol_most_members_like_best_is_chosen() {
    check(
        "join A knows=range,rr | join B knows=rr,range | join C knows=rr,range,x | at 6",
        expect![[r#"
            6s A is A-1 in 1 rr, leads A-1 B-2 C-3
            6s B is B-2 in 1 rr, A-1 leads
            6s C is C-3 in 1 rr, A-1 leads
        "#]],
    );
    check(
        "join A knows=range,rr | join B knows=rr,range | at 6",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
        "#]],
    );
}

#[test]
fn a_follower_that_joins_again_unchanged_changes_nothing() {
    check_pair(
        "join B | sync B | state",
        expect![[r#"
            6s B is B-2 in 1 range, A-1 leads
            6s B got "b"
            6s Stable in 1 with 2
        "#]],
    );
}

#[test]
fn a_leader_that_joins_again_or_changed_metadata_begins_a_rebalance() {
    check_pair(
        "join A | state | beat B | join B",
        expect![[r#"
            6s PreparingRebalance in 1 with 2
            6s B beat REBALANCE_IN_PROGRESS
            6s A is A-1 in 2 range, leads A-1 B-2
            6s B is B-2 in 2 range, A-1 leads
        "#]],
    );
    check_pair(
        "join B meta=more | state | beat A | join A",
        expect![[r#"
            6s PreparingRebalance in 1 with 2
            6s A beat REBALANCE_IN_PROGRESS
            6s A is A-1 in 2 range, leads A-1 B-2
            6s B is B-2 in 2 range, A-1 leads
        "#]],
    );
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    check_pair(
        "join A | at 15 | beat B | at 24 | beat B | at 33 | beat B | at 42 | beat B | at 51 | beat B | at 60 | beat B | at 66 | beat B",
        expect![[r#"
            15s B beat REBALANCE_IN_PROGRESS
            24s B beat REBALANCE_IN_PROGRESS
            33s B beat REBALANCE_IN_PROGRESS
            42s B beat REBALANCE_IN_PROGRESS
            51s B beat REBALANCE_IN_PROGRESS
            60s B beat REBALANCE_IN_PROGRESS
            66s A is A-1 in 2 range, leads A-1
            66s B beat UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn a_silent_member_is_given_up_after_its_session() {
    check_pair(
        "at 10 | beat A | at 15 | state | at 16 | beat A | join A",
        expect![[r#"
            10s A beat ok
            15s Stable in 1 with 2
            16s A beat REBALANCE_IN_PROGRESS
            16s A is A-1 in 2 range, leads A-1
        "#]],
    );
}

#[test]
fn who_waits_is_not_given_up() {
    check_pair(
        "join B meta=new rebalance=60 | at 15 | beat A | at 24 | beat A | at 30 | join A",
        expect![[r#"
            15s A beat REBALANCE_IN_PROGRESS
            24s A beat REBALANCE_IN_PROGRESS
            30s A is A-1 in 2 range, leads A-1 B-2
            30s B is B-2 in 2 range, A-1 leads
        "#]],
    );
}

#[test]
fn who_asks_for_an_assignment_waits_for_the_leader() {
    check(
        "join A | join B | at 6 | sync B | at 7 | beat A | sync A gives=A-1:a,B-2:b",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            7s A beat ok
            7s A got "a"
            7s B got "b"
        "#]],
    );
}

#[test]
fn a_leader_that_dies_before_it_assigned_begins_the_rebalance_again() {
    check(
        "join A | join B | at 6 | sync B | at 16 | state | join B | sync B gives=B-2:all",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            16s B sync REBALANCE_IN_PROGRESS
            16s PreparingRebalance in 1 with 1
            16s B is B-2 in 2 range, leads B-2
            16s B got "all"
        "#]],
    );
    check(
        "join A | join B | at 6 | sync B | leave A | join B",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            6s leave ok
            6s B sync REBALANCE_IN_PROGRESS
            6s B is B-2 in 2 range, leads B-2
        "#]],
    );
}

#[test]
fn who_never_asks_for_its_assignment_is_out_after_the_rebalance_timeout() {
    check(
        "join A rebalance=20 | join B rebalance=20 | at 6 | sync A gives=A-1:a | at 14 | beat A | beat B | at 22 | beat A | beat B | at 26 | state | join A",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            6s A got "a"
            14s A beat ok
            14s B beat ok
            22s A beat ok
            22s B beat ok
            26s PreparingRebalance in 1 with 1
            26s A is A-1 in 2 range, leads A-1
        "#]],
    );
}

#[test]
fn whom_the_leader_does_not_name_has_nothing_to_do() {
    let mut play = play(GroupConfig::default(), "join A type=consumer | join B type=consumer | at 6 | sync A gives=A-1:a");
    play.out.clear();
    play.step("sync B");
    expect![[r#"
        6s B got ""
    "#]]
    .assert_eq(&play.out);
}

#[test]
fn who_knows_no_protocol_of_the_group_as_it_is_is_refused_even_alone() {
    check(
        "join A knows=range | at 3 | sync A gives=A-1:a | join A knows=rr | beat A | join A knows=rr,range",
        expect![[r#"
            3s A is A-1 in 1 range, leads A-1
            3s A got "a"
            3s A join INCONSISTENT_GROUP_PROTOCOL
            3s A beat ok
            3s A is A-1 in 2 rr, leads A-1
        "#]],
    );
}

#[test]
fn a_sync_that_believes_in_another_protocol_is_refused() {
    check_pair(
        "sync A knows=rr | sync A type=connect | sync A knows=range type=test",
        expect![[r#"
            6s A sync INCONSISTENT_GROUP_PROTOCOL
            6s A sync INCONSISTENT_GROUP_PROTOCOL
            6s A got "a"
        "#]],
    );
}

#[test]
fn a_join_repeated_on_a_new_connection_answers_the_old_one() {
    check_pair(
        "join A meta=new | join A meta=new | join B",
        expect![[r#"
            6s A join REBALANCE_IN_PROGRESS
            6s A is A-1 in 2 range, leads A-1 B-2
            6s B is B-2 in 2 range, A-1 leads
        "#]],
    );
    check(
        "join A | join B | at 6 | join A | sync B | sync B",
        expect![[r#"
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B is B-2 in 1 range, A-1 leads
            6s A is A-1 in 1 range, leads A-1 B-2
            6s B sync REBALANCE_IN_PROGRESS
        "#]],
    );
}

#[test]
fn several_members_leave_in_one_request() {
    check_pair(
        "join C | leave A X-9 static=s B | at 7",
        expect![[r#"
            6s leave ok UNKNOWN_MEMBER_ID UNKNOWN_MEMBER_ID ok
            6s C is C-3 in 2 range, leads C-3
        "#]],
    );
    check_pair(
        "join C v4 | leave C | join C",
        expect![[r#"
            6s C join MEMBER_ID_REQUIRED
            6s leave ok
            6s C join UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn a_group_has_a_greatest_size() {
    let config = GroupConfig { max_size: 2, ..GroupConfig::default() };
    let play = play(config, "join A | join B v4 | join C v4 | join D | join B v4 | at 6 | join E");
    expect![[r#"
        0s B join MEMBER_ID_REQUIRED
        0s C join GROUP_MAX_SIZE_REACHED
        0s D join GROUP_MAX_SIZE_REACHED
        6s A is A-1 in 1 range, leads A-1 B-2
        6s B is B-2 in 1 range, A-1 leads
        6s E join GROUP_MAX_SIZE_REACHED
    "#]]
    .assert_eq(&play.out);
}

#[test]
fn without_a_delay_the_first_member_is_assigned_at_once() {
    let config = GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() };
    expect![[r#"
        0s A is A-1 in 1 range, leads A-1
        0s A got "a"
        0s A beat REBALANCE_IN_PROGRESS
        0s A is A-1 in 2 range, leads A-1 B-2
        0s B is B-2 in 2 range, A-1 leads
        0s A got "a"
        0s B got "b"
    "#]]
    .assert_eq(&play(config, "join A | sync A gives=A-1:a | join B | beat A | join A | sync B | sync A gives=A-1:a,B-2:b").out);
}
