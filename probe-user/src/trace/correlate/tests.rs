use super::{testing::*, *};
use crate::{
    ended::{Direction, Ended},
    facts::Transport,
    trace::{HookKind, event::Cover},
};

const ONE: Asked = Asked { port: 41334, id: 7, start: 1_000_000_000, skb: 0xffff_0000 };

fn only(mut traces: Vec<PacketTrace>) -> PacketTrace {
    assert_eq!(traces.len(), 1, "{traces:#?}");
    traces.remove(0)
}

#[test]
fn a_healthy_query_has_seven_hops_and_is_answered() {
    let trace = only(at_last(&ONE.healthy()));
    assert_eq!(trace.ended, Ended::Answered);
    assert_eq!(trace.hops.len(), 7);
    assert_eq!(trace.hops[2].note.as_deref(), Some("the node's DNS socket"));
    assert_eq!(trace.hops[6].t_us, 330);
}

#[test]
fn a_leak_names_its_device_and_as_whom() {
    let trace = only(at_last(&ONE.leaked()));
    assert_eq!(trace.ended, Ended::Leaked);
    let leak = trace.leak.expect("a leak");
    assert_eq!((leak.interface.as_str(), leak.r#as), ("eth0", Some(addr("192.168.77.2:41334"))));
    assert_eq!(trace.hops[3].note.as_deref(), Some("masqueraded; left the node"));
}

#[test]
fn an_answer_from_outside_does_not_hide_the_leak() {
    let mut events = ONE.leaked();
    events.extend(ONE.answered_from_outside());
    let trace = only(at_last(&events));
    assert_eq!(trace.ended, Ended::Leaked);
    assert_eq!(trace.hops.len(), 6);
}

#[test]
fn an_answer_joins_even_where_the_translation_was_not_seen() {
    let mut events = ONE.leaked();
    events.retain(|event| event.hook != HookKind::Transmit);
    events.extend(ONE.answered_from_outside());
    assert_eq!(only(at_last(&events)).hops.len(), 5);
}

#[test]
fn the_head_of_egress_is_no_proof_while_the_packet_can_still_be_dropped_behind_it() {
    let mut events = ONE.leaked();
    events.retain(|event| event.hook != HookKind::Transmit);
    let mut drop = ONE.event(20, HookKind::Drop, (NODE, ETH0), &ONE.pod(), TARGET, false);
    drop.drop_reason = Some("TC_EGRESS".into());
    events.push(drop);
    assert_eq!(only(at_last(&events)).ended, Ended::Dropped);
}

#[test]
fn without_the_transmit_hook_the_egress_is_the_leak_and_as_is_unknown() {
    let mut events = ONE.leaked();
    events.retain(|event| event.hook != HookKind::Transmit);
    let mut topology = topology();
    topology.cover.transmit = false;
    let trace = only(correlate(&events, &topology, Horizon { now_ns: 2_000_000_000, last: false }));
    assert_eq!(trace.leak.expect("a leak").r#as, None);
}

#[test]
fn a_drop_has_its_reason_and_place() {
    let trace = only(at_last(&ONE.dropped()));
    assert_eq!(trace.ended, Ended::Dropped);
    let drop = trace.drop.expect("a drop");
    assert_eq!((drop.reason.as_str(), drop.r#where.as_str()), ("TC_INGRESS", "lxcaa on the node"));
    assert_eq!(drop.direction, Direction::Request);
}

#[test]
fn a_drop_that_only_the_packets_address_names_still_belongs_to_its_query() {
    let mut events = ONE.dropped();
    for event in &mut events {
        if event.hook == HookKind::Drop {
            event.flow = None;
        }
    }
    assert_eq!(only(at_last(&events)).ended, Ended::Dropped);
}

#[test]
fn a_recycled_address_does_not_join_two_packets() {
    let mut events = ONE.dropped();
    let mut stray = ONE.event(4_000_000, HookKind::Drop, (NODE, LXC), &ONE.pod(), TARGET, false);
    stray.flow = None;
    stray.drop_reason = Some("QUEUE_PURGE".into());
    events.push(stray);
    let trace = only(at_last(&events));
    assert_eq!(trace.drop.expect("a drop").reason, "TC_INGRESS");
    assert_eq!(trace.hops.len(), 3);
}

#[test]
fn a_new_packet_at_a_known_address_is_no_translation_of_the_old_one() {
    let over_tcp = |asked: Asked, source: &str| {
        let mut events = asked.leaked();
        for event in &mut events {
            let flow = event.flow.as_mut().expect("a flow");
            flow.transport = Transport::Tcp;
            if event.hook != HookKind::Transmit {
                flow.src = addr(source);
            }
            (event.dns, event.tcp_flags) = (None, 2);
        }
        events
    };
    let mut events = over_tcp(ONE, "10.244.1.131:53197");
    events.extend(over_tcp(Asked { start: ONE.start + 9_000_000, port: 59629, ..ONE }, "10.244.1.132:59629"));
    let traces = at_last(&events);
    assert_eq!(traces.iter().map(|trace| trace.hops.len()).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn what_goes_with_its_socket_was_not_dropped_on_its_way() {
    let mut events = ONE.healthy();
    for event in &mut events {
        event.dns = None; // so that nothing shows an answer
    }
    let mut purged = ONE.event(900, HookKind::Drop, (POD, 0), TARGET, &ONE.pod(), true);
    (purged.drop_reason, purged.dns) = (Some("QUEUE_PURGE".into()), None);
    events.push(purged);
    assert_eq!(only(at_last(&events)).drop, None);
}

#[test]
fn nobody_listens_is_not_a_drop() {
    let mut events = ONE.out_of_the_pod();
    let mut drop = ONE.event(20, HookKind::Drop, (NODE, LXC), &ONE.pod(), TARGET, false);
    drop.drop_reason = Some("NO_SOCKET".into());
    events.push(drop);
    assert_eq!(only(at_last(&events)).ended, Ended::PortUnreachable);
}

#[test]
fn a_reply_that_never_arrives_is_lost_on_the_way_back() {
    let mut events = ONE.healthy();
    events.truncate(5);
    let trace = only(at_last(&events));
    assert_eq!(trace.ended, Ended::Lost);
    let lost = trace.lost.expect("a loss");
    assert_eq!((lost.direction, lost.last_hop.as_str()), (Direction::Reply, "cilium_host egress"));
}

#[test]
fn a_request_that_never_arrives_is_lost_on_the_way_there() {
    let trace = only(at_last(&ONE.out_of_the_pod()));
    let lost = trace.lost.expect("a loss");
    assert_eq!((lost.direction, lost.last_hop.as_str()), (Direction::Request, "lxcaa ingress"));
}

#[test]
fn silence_proves_nothing_where_events_were_lost_or_hooks_are_missing() {
    let horizon = Horizon { now_ns: 10_000_000_000, last: true };
    type Spoil = fn(&mut Cover);
    let spoils: [Spoil; 3] = [|c| c.complete = false, |c| c.sockets = false, |c| c.exits = false];
    for spoil in spoils {
        let mut topology = topology();
        spoil(&mut topology.cover);
        let trace = only(correlate(&ONE.out_of_the_pod(), &topology, horizon));
        assert_eq!(trace.ended, Ended::Unknown);
        assert!(trace.unknown.is_some());
    }
}

#[test]
fn a_query_at_the_server_is_waited_for_and_then_unanswered() {
    let mut events = ONE.healthy();
    events.truncate(3);
    let soon = correlate(&events, &topology(), Horizon { now_ns: 2_000_000_000, last: false });
    assert_eq!(only(soon).ended, Ended::Unknown);
    assert_eq!(only(at_last(&events)).ended, Ended::Unanswered);
}

#[test]
fn another_servers_socket_on_that_address_does_not_pass_for_the_nodes_own() {
    let mut events = ONE.healthy();
    events.truncate(3);
    events[2].socket = 4711;
    assert_eq!(only(at_last(&events)).ended, Ended::Lost);
}

#[test]
fn other_namespaces_with_the_same_addresses_are_not_mixed_in() {
    let mut events = ONE.healthy();
    let strangers: Vec<Event> = events
        .iter()
        .cloned()
        .map(|mut event| {
            event.netns = ELSEWHERE;
            event.skb += 0x1000;
            event
        })
        .collect();
    events.extend(strangers);
    assert_eq!(only(at_last(&events)).hops.len(), 7);
}

/// Ids are few, and a client that does not wait for its answers uses one again on the same port.
#[test]
fn another_question_under_the_same_id_is_another_transaction() {
    let named = |mut event: Event, name: &str| {
        let dns = event.dns.as_mut().expect("a message");
        dns.qname = Some(name.into());
        event
    };
    let again = Asked { start: ONE.start + 50_000, skb: 0xffff_8000, ..ONE };
    let mut events: Vec<Event> = ONE.healthy().into_iter().map(|event| named(event, "first.example.")).collect();
    events.extend(again.out_of_the_pod().into_iter().map(|event| named(event, "second.example.")));
    // The question is told once per packet, as under load.
    for event in &mut events {
        if !matches!(event.hook, HookKind::SocketOut) {
            event.dns.as_mut().expect("a message").qname = None;
        }
    }
    let traces = at_last(&events);
    let told: Vec<_> = traces.iter().map(|trace| (trace.ended, trace.hops.len())).collect();
    assert_eq!(told, [(Ended::Answered, 7), (Ended::Lost, 2)]);

    let mixed_case = Asked { start: ONE.start + 1_000_000_000, skb: 0xffff_8000, ..ONE };
    let mut events: Vec<Event> = ONE.out_of_the_pod();
    events.extend(mixed_case.healthy().into_iter().map(|event| named(event, "eXample.COM.")));
    assert_eq!(at_last(&events).len(), 1);
}

#[test]
fn a_retry_with_the_same_id_is_the_same_transaction() {
    let mut events = ONE.out_of_the_pod();
    let again = Asked { start: ONE.start + 1_000_000_000, skb: 0xffff_8000, ..ONE };
    events.extend(again.healthy());
    let trace = only(at_last(&events));
    assert_eq!((trace.ended, trace.hops.len()), (Ended::Answered, 9));
}

#[test]
fn the_same_ends_and_id_much_later_are_another_question() {
    let mut events = ONE.healthy();
    events.extend(Asked { start: ONE.start + 60_000_000_000, skb: 0xffff_8000, ..ONE }.healthy());
    assert_eq!(at_last(&events).len(), 2);
}

#[test]
fn a_port_unreachable_from_beyond_the_node_does_not_hide_the_leak() {
    let mut events = ONE.leaked();
    let mut icmp = ONE.event(600, HookKind::Ingress, (NODE, ETH0), "192.168.77.2:41334", TARGET, true);
    icmp.icmp_error = Some((3, 3));
    icmp.dns = None;
    events.push(icmp);
    let trace = only(at_last(&events));
    assert_eq!((trace.ended, trace.hops.len()), (Ended::Leaked, 5));
}

#[test]
fn a_stream_hands_out_each_transaction_once_and_forgets_it() {
    let mut events = ONE.healthy();
    let later = Asked { start: ONE.start + 2_000_000_000, skb: 0xffff_8000, ..ONE };
    events.extend(later.leaked());
    events.extend(Asked { start: ONE.start + 7_000_000_000, skb: 0xffff_9000, ..ONE }.dropped());
    let ended: Vec<_> = live(&events).iter().map(|trace| (trace.id, trace.ended)).collect();
    assert_eq!(ended, [(1, Ended::Answered), (2, Ended::Leaked), (3, Ended::Dropped)]);
}

#[test]
fn an_answer_that_never_was_at_the_servers_socket_is_nobodys() {
    let asked = Asked { port: 41_334, id: 7, start: 1_000_000_000, skb: 0xffff_0000 };
    let mut events = asked.out_of_the_pod();
    events.extend(asked.healthy().pop());
    let trace = at_last(&events).remove(0);
    assert_eq!(trace.ended, Ended::Unknown);
    assert!(trace.unknown.unwrap().contains("not seen at the node's own DNS socket"));
    // Where the sockets are not watched nothing could have shown it.
    let blind = Topology { cover: Cover { sockets: false, ..topology().cover }, ..topology() };
    let traces = correlate(&events, &blind, Horizon { now_ns: u64::MAX, last: true });
    assert_eq!(traces[0].ended, Ended::Answered);
}

#[test]
fn an_error_about_the_answer_refuses_no_query() {
    let asked = Asked { port: 41_334, id: 7, start: 1_000_000_000, skb: 0xffff_0000 };
    let mut events = asked.healthy();
    let answer = events.pop().unwrap();
    let error = |flow| Event {
        icmp_error: Some((3, 3)),
        flow,
        dns: None,
        skb: 0xffff_0900,
        ..Event { hook: HookKind::Ingress, netns: NODE, ifindex: LXC, time_ns: answer.time_ns + 9000, ..answer.clone() }
    };
    let ended = |error: Event| at_last(&[events.clone(), vec![error]].concat())[0].ended;
    assert_ne!(ended(error(answer.flow)), Ended::PortUnreachable, "whoever asked is gone");
    assert_eq!(ended(error(events[0].flow)), Ended::PortUnreachable);
}
