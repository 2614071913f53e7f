//! Offsets: who may commit, how long they are kept, and how they are stored; what operators see.

use expect_test::expect;

use super::*;

#[test]
fn a_commit_needs_the_right_member_and_generation_unless_the_group_is_empty() {
    check(
        "commit X gen=-1 | commit X gen=3 id=X-1 | commit X gen=-1 id=X-1",
        expect![[r#"
            0s X commit ok
            0s X commit UNKNOWN_MEMBER_ID
            0s X commit ok
        "#]],
    );
    check_pair(
        "commit X gen=-1 | commit A gen=-1 | commit A | join A | commit B | commit B gen=0 | join B | commit B | commit A",
        expect![[r#"
            6s X commit UNKNOWN_MEMBER_ID
            6s A commit ILLEGAL_GENERATION
            6s A commit ok
            6s B commit ok
            6s B commit ILLEGAL_GENERATION
            6s A is A-1 in 2 range, leads A-1 B-2
            6s B is B-2 in 2 range, A-1 leads
            6s B commit REBALANCE_IN_PROGRESS
            6s A commit REBALANCE_IN_PROGRESS
        "#]],
    );
    check_pair(
        "leave A B | commit A | commit X gen=-1",
        expect![[r#"
            6s leave ok ok
            6s A commit UNKNOWN_MEMBER_ID
            6s X commit ok
        "#]],
    );
}

#[test]
fn a_commit_is_a_sign_of_life() {
    check_pair(
        "at 15 | commit A | at 24 | state | at 25 | state",
        expect![[r#"
            15s A commit ok
            24s PreparingRebalance in 1 with 1
            25s Empty in 2 with 0
        "#]],
    );
}

const WEEK: i64 = 7 * 24 * 3600;

#[test]
fn offsets_age_from_when_the_group_became_empty() {
    check_pair(
        &format!("commit A | at 9 | leave A B | expire | at {} | expire | at {} | expire | join A", WEEK + 8, WEEK + 9),
        expect![[r#"
            6s A commit ok
            9s leave ok ok
            9s 0 expired, Empty
            604808s 0 expired, Empty
            604809s 2 expired, Dead
            604809s A join COORDINATOR_NOT_AVAILABLE
        "#]],
    );
}

#[test]
fn offsets_of_a_storage_only_group_age_from_their_commit() {
    check(
        &format!("at 50 | commit X gen=-1 | at {} | expire | at {} | expire", WEEK + 49, WEEK + 50),
        expect![[r#"
            50s X commit ok
            604849s 0 expired, Empty
            604850s 1 expired, Dead
        "#]],
    );
}

#[test]
fn a_commit_from_outside_after_the_group_became_empty_counts_anew() {
    check_pair(
        &format!("leave A B | at 1000 | commit X gen=-1 | at {} | expire | at {} | expire", WEEK + 999, WEEK + 1000),
        expect![[r#"
            6s leave ok ok
            1000s X commit ok
            605799s 0 expired, Empty
            605800s 2 expired, Dead
        "#]],
    );
}

#[test]
fn a_client_may_set_how_long_its_offsets_are_kept() {
    check(
        "commit X gen=-1 keep=20 | at 19 | expire | at 20 | expire",
        expect![[r#"
            0s X commit ok
            19s 0 expired, Empty
            20s 1 expired, Dead
        "#]],
    );
}

#[test]
fn a_running_group_keeps_the_offsets_of_what_it_reads() {
    for (topic, is_kept) in [("t", true), ("u", false)] {
        // The metadata is not text, so it is put in behind the script's back.
        let mut play = play(GroupConfig::default(), "join A type=consumer session=1800 | at 3 | sync A gives=A-1:a | commit A");
        let data = [&[0, 0, 0, 0, 0, 1, 0, 1][..], topic.as_bytes(), &[0xff; 4]].concat();
        play.group.members.get_mut("A-1").unwrap().protocols[0].1 = data.into();
        let late = Timestamp(WEEK * 1000 + 3000);
        assert_eq!(play.group.expire(late).is_empty(), is_kept);
        for protocol in [play.group.protocol.clone(), None] {
            // None while the group is being rebalanced.
            play.group.protocol = protocol;
            assert_eq!(play.group.delete_offsets(&[of(topic, 0)]).unwrap().0, [e::GROUP_SUBSCRIBED_TO_TOPIC]);
            assert_eq!(play.group.delete_offsets(&[of("v", 0)]).unwrap(), (vec![e::NONE], vec![]));
        }
    }
}

#[test]
fn of_two_commits_the_later_in_the_log_holds() {
    let mut group = Group::new(GroupId::new("g").unwrap(), GroupConfig::default(), Timestamp(0));
    let commit = |offset, metadata: &str| CommitRequest {
        member_id: String::new(),
        instance_id: None,
        generation: -1,
        knows_epochs: false,
        retention_ms: None,
        offsets: vec![CommitOffset { of: of("t", 1), offset: Offset(offset), leader_epoch: 4, metadata: Some(metadata.to_owned()) }],
    };
    let first = group.plan_commit(Timestamp(1), &commit(10, "a")).unwrap();
    let second = group.plan_commit(Timestamp(2), &commit(20, "b")).unwrap();
    let failed = group.plan_commit(Timestamp(3), &commit(30, "c")).unwrap();
    assert!(group.committed(&of("t", 1)).is_none(), "nothing shows before it is durable");
    assert!(group.expire(Timestamp(i64::MAX)).is_empty() && !group.is_dead(), "what is on its way holds the group");
    group.commit_stored(second, Offset(101));
    group.commit_stored(first, Offset(100));
    group.commit_failed(&failed);
    assert_eq!(group.committed(&of("t", 1)).unwrap().offset, Offset(20));
    let long = group.plan_commit(Timestamp(4), &commit(1, &"x".repeat(4097))).unwrap();
    assert_eq!(long.refused, [(of("t", 1), e::OFFSET_METADATA_TOO_LARGE)]);
    assert!(long.records().is_empty());
    let fits = group.plan_commit(Timestamp(4), &commit(1, &"x".repeat(4096))).unwrap();
    assert_eq!(fits.accepted.len(), 1);
    // Deleting the group while a commit is on its way leaves a tombstone behind it.
    let tombstones = group.delete().unwrap();
    assert_eq!(tombstones.len(), 1);
    group.commit_stored(fits, Offset(102));
    assert!(group.committed(&of("t", 1)).is_none());
}

#[test]
fn only_an_empty_group_is_deleted() {
    let mut play = play(GroupConfig::default(), PAIR);
    play.step("commit A");
    assert_eq!(play.group.delete(), Err(e::NON_EMPTY_GROUP));
    assert_eq!(play.group.delete_offsets(&[of("t", 0)]), Err(e::NON_EMPTY_GROUP), "it is not a group of consumers");
    play.step("leave A B");
    let (errors, tombstones) = play.group.delete_offsets(&[of("t", 0), of("t", 9)]).unwrap();
    assert_eq!((errors, tombstones.len()), (vec![e::NONE, e::NONE], 1));
    assert_eq!(play.group.delete().unwrap().len(), 1, "the group's own tombstone");
    assert_eq!(play.group.delete(), Err(e::GROUP_ID_NOT_FOUND));
    play.out.clear();
    for step in ["join A", "sync A", "beat A", "commit A", "state"] {
        play.step(step);
    }
    expect![[r#"
        6s A join COORDINATOR_NOT_AVAILABLE
        6s A sync COORDINATOR_NOT_AVAILABLE
        6s A beat COORDINATOR_NOT_AVAILABLE
        6s A commit COORDINATOR_NOT_AVAILABLE
        6s Dead in 2 with 0
    "#]]
    .assert_eq(&play.out);
}

#[test]
fn a_topic_that_is_gone_takes_its_offsets_along() {
    let mut play = play(GroupConfig::default(), "commit X gen=-1");
    assert!(play.group.forget_topic(&TopicName::new("u").unwrap()).is_empty());
    assert_eq!(play.group.forget_topic(&TopicName::new("t").unwrap()).len(), 1);
    assert_eq!(play.group.all_committed().count(), 0);
}

#[test]
fn a_description_shows_the_work_only_while_the_group_is_stable() {
    let mut play = play(GroupConfig::default(), PAIR);
    let described = play.group.describe();
    assert_eq!((described.state.to_string().as_str(), described.protocol.as_str()), ("Stable", "range"));
    let first = &described.members[0];
    assert_eq!((first.member_id.as_str(), first.client_id.as_str(), first.client_host.as_str()), ("A-1", "A", "/10.0.0.1"));
    assert_eq!((&first.metadata[..], &first.assignment[..]), (&b"A's"[..], &b"a"[..]));
    play.step("join A");
    let described = play.group.describe();
    assert_eq!((described.state.to_string().as_str(), described.protocol.as_str()), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|m| m.metadata.is_empty()));
    let listed = play.group.list();
    assert_eq!((listed.protocol_type.as_str(), listed.state), ("test", GroupState::PreparingRebalance));
    assert_eq!(Described::unknown(GroupId::new("x").unwrap()).state, GroupState::Dead);
}

#[test]
fn a_group_nobody_used_leaves_no_trace() {
    let mut play = play(GroupConfig::default(), "beat A");
    assert!(play.group.is_unused());
    assert!(play.group.expire(Timestamp(1)).is_empty());
    assert!(play.group.is_dead());
    assert!(!super::play(GroupConfig::default(), "join A v4").group.is_unused());
}

#[test]
fn what_is_stored_is_read_back_and_keeps_its_age() {
    let config = GroupConfig::default();
    let mut log: Vec<GroupRecord> = Vec::new();
    let mut group = Group::new(GroupId::new("g").unwrap(), config, Timestamp(0));
    let store = |log: &mut Vec<GroupRecord>, effects: Vec<Effect>| {
        log.extend(effects.into_iter().filter_map(|effect| if let Effect::Store(record) = effect { Some(record) } else { None }));
    };
    let request = JoinRequest {
        token: Token(1),
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "h".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        require_known_member_id: false,
        supports_skip_assignment: false,
        nonce: "1".to_owned(),
    };
    store(&mut log, group.join(Timestamp(1000), &request, &Table::default()));
    store(&mut log, group.tick(Timestamp(4000), &Table::default()));
    for (offset, retention_ms) in [(7, None), (8, Some(500))] {
        let offsets =
            vec![CommitOffset { of: of("t", offset as i32), offset: Offset(offset), leader_epoch: 3, metadata: Some("m".into()) }];
        let mut commit =
            CommitRequest { member_id: "c-1".to_owned(), instance_id: None, generation: 1, knows_epochs: false, retention_ms, offsets };
        assert_eq!(group.plan_commit(Timestamp(4000), &commit).unwrap_err(), e::REBALANCE_IN_PROGRESS);
        commit.generation = -1;
        commit.member_id = String::new();
        let mut other = Group::new(GroupId::new("g").unwrap(), config, Timestamp(0));
        log.extend(other.plan_commit(Timestamp(4000), &commit).unwrap().records());
    }
    let replay = |log: &[GroupRecord], now| {
        let mut replay = Replay::default();
        for (at, record) in log.iter().enumerate() {
            replay.take(Offset(at as i64), Some(&record.key), record.value.as_deref()).unwrap();
        }
        replay.finish(config, now)
    };
    let (groups, records) = replay(&log, Timestamp(50_000));
    assert_eq!(groups[0].generation(), 0, "the generation is stored once the group is empty");
    assert_eq!(groups[0].state(), GroupState::Empty);
    let seven = groups[0].committed(&of("t", 7)).unwrap();
    assert_eq!((seven.offset, seven.leader_epoch, seven.metadata.as_str(), seven.committed_at), (Offset(7), 3, "m", Timestamp(4000)));
    let eight = groups[0].committed(&of("t", 8)).unwrap();
    assert_eq!((eight.leader_epoch, eight.expires_at), (-1, Some(Timestamp(4500))));
    // It had members when it was stored: it is empty since this start, and the next start knows.
    assert_eq!(records.len(), 1);
    log.extend(records);
    let (mut groups, records) = replay(&log, Timestamp(90_000));
    assert!(records.is_empty());
    let week = config.offsets_retention_ms;
    assert_eq!(groups[0].expire(Timestamp(50_000 + week - 1)).len(), 1, "the one with its own expiry");
    let gone = groups[0].expire(Timestamp(50_000 + week));
    assert_eq!(gone.len(), 2, "the other and the group");
    log.extend(gone);
    let (groups, _) = replay(&log, Timestamp(95_000));
    assert!(groups.iter().all(|g| g.committed(&of("t", 7)).is_none()));
    // The group empties in the log, too.
    let (_, effects) = group.leave(Timestamp(9000), vec![Leaving { member_id: "c-1".to_owned(), instance_id: None }], &Table::default());
    let Some(Effect::Store(last)) = effects.last() else { panic!("the time it became empty is stored") };
    let stored = read_stored(Some(&last.key), last.value.as_deref()).unwrap();
    let expected =
        StoredGroup { protocol_type: "consumer".to_owned(), generation: 2, empty_since: Some(Timestamp(9000)), ..StoredGroup::default() };
    assert_eq!(stored, StoredEntry::Group(GroupId::new("g").unwrap(), Some(expected)));
}

#[test]
fn the_members_of_a_stable_group_outlive_a_restart() {
    let mut play = play(GroupConfig::default(), "join A static=s type=consumer | join B type=consumer | at 6 | sync B");
    play.step("sync A static=s gives=s-1:a,B-2:b");
    let mut replay = Replay::default();
    for (at, record) in play.log.iter().enumerate() {
        replay.take(Offset(at as i64), Some(&record.key), record.value.as_deref()).unwrap();
    }
    let (mut groups, records) = replay.finish(GroupConfig::default(), Timestamp(60_000));
    assert!(records.is_empty());
    let before = play.group.describe();
    play.group = groups.remove(0);
    assert_eq!(play.group.describe(), before);
    play.out.clear();
    let script = "at 61 | beat A static=s | beat B | sync B | commit B | commit X id=x gen=1 | join B type=consumer \
                  | join A id= static=s v9 type=consumer | at 69 | beat A static=s | at 80 | state";
    for step in script.split('|') {
        play.step(step);
    }
    expect![[r#"
        61s A beat ok
        61s B beat ok
        61s B got "b"
        61s B commit ok
        61s X commit UNKNOWN_MEMBER_ID
        61s B is B-2 in 1 range, s-1 leads
        61s A is s-4 in 1 range, leads B-2 s-4, skips
        69s A beat ok
        80s Empty in 2 with 0
    "#]]
    .assert_eq(&play.out);
}

#[test]
fn a_damaged_stored_record_is_an_error_at_every_cut() {
    let committed =
        Committed { offset: Offset(1), leader_epoch: 0, metadata: "m".to_owned(), committed_at: Timestamp(5), expires_at: None };
    let group = GroupId::new("g").unwrap();
    let member = StoredMember {
        member_id: "c-1".to_owned(),
        instance_id: Some("i".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        rebalance_timeout_ms: 10_000,
        session_timeout_ms: 9_000,
        subscription: Bytes::from_static(b"wants"),
        assignment: Bytes::from_static(b"has"),
    };
    let stored = StoredGroup {
        protocol_type: "consumer".to_owned(),
        generation: 3,
        protocol: Some("range".to_owned()),
        leader: Some("c-1".to_owned()),
        empty_since: None,
        members: vec![member],
    };
    let offset = stored::offset_record(&group, &of("t", 2), &committed);
    let about_group = stored_classic::group_record(&group, &stored);
    let read = read_stored(Some(&about_group.key), about_group.value.as_deref());
    assert_eq!(read, Ok(StoredEntry::Group(group, Some(stored))));
    for record in [offset, about_group] {
        let value = record.value.unwrap();
        for cut in 0..record.key.len() {
            assert!(read_stored(Some(&record.key[..cut]), Some(&value)).is_err());
        }
        for cut in 0..value.len() {
            assert!(read_stored(Some(&record.key), Some(&value[..cut])).is_err(), "{cut}");
        }
        assert!(read_stored(Some(&record.key), Some(&value)).is_ok());
    }
    assert_eq!(read_stored(None, None), Err(StoredError::NoKey));
    assert_eq!(read_stored(Some(&[0, 9]), None), Ok(StoredEntry::Other(9)));
    let bad_topic = [&[0, 1, 0, 1][..], b"g", &[0, 2], b"..", &[0; 4]].concat();
    assert!(matches!(read_stored(Some(&bad_topic), None), Err(StoredError::Topic(_))));
}
