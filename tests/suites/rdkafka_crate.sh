#!/usr/bin/env bash
# The tests of crate rdkafka, the Rust client that wraps librdkafka, its unit tests included. Several of them know the broker's port,
# 9092. One is about messages that nobody takes within 0.1 s; since the node makes a topic and takes them sooner, it runs against
# one that makes no topics by itself.
source "$(dirname "$0")/common.sh"
if [ -z "${BOOTSTRAP:-}" ]; then
  if listens 9092; then skip_suite "port 9092 is taken"; fi
  PORT=9092 start_node node kafka.default_partitions=3 kafka.group_initial_rebalance_delay=0ms kafka.group_min_session_timeout=1s
  BOOTSTRAP=$address
  start_node noauto kafka.default_partitions=3 kafka.auto_create_topics=false
  NOAUTO_BOOTSTRAP=$address
fi
export KAFKA_VERSION=4.2.0
late=test_base_producer_timeout
KAFKA_HOST=$BOOTSTRAP crate_tests rdkafka 0.39.0 --tests -- ${NOAUTO_BOOTSTRAP:+--skip $late}
[ -z "${NOAUTO_BOOTSTRAP:-}" ] || KAFKA_HOST=$NOAUTO_BOOTSTRAP crate_tests rdkafka 0.39.0 --test test_low_producers -- --exact $late
judge
