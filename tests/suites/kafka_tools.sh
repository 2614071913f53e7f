#!/usr/bin/env bash
# Apache Kafka's own command line tools do their jobs against the node: topics, configs, groups, access rules, transactions,
# the verifiable producer and consumer, and the perf tests. The tools come from Maven.
source "$(dirname "$0")/common.sh"
command -v java >/dev/null || need java default-jre-headless
command -v mvn >/dev/null || need mvn maven
"$here/kafka_tool" install >"$work/tools.log" 2>&1 || { tail -5 "$work/tools.log"; skip_suite "the tools could not be fetched"; }
if [ -z "${BOOTSTRAP:-}" ]; then
  start_node node kafka.default_partitions=3 kafka.group_initial_rebalance_delay=0ms
  BOOTSTRAP=$address
fi
node_id=${NODE_ID:-0}
mark=$RANDOM$RANDOM
topic=tools-$mark group=tools-group-$mark

check() { # NAME PATTERN TOOL ARGS..: the tool ends well and says something that matches; its words are left in $said
  local name=$1 pattern=$2 tool=$3 code
  shift 3
  wanted "$name" || return 0
  said=$(timeout --kill-after=5 "${LIMIT:-60}" "$here/kafka_tool" "$tool" --bootstrap-server "$BOOTSTRAP" "$@" </dev/stdin 2>&1)
  code=$?
  judge_one "$name" "$code" "$pattern"
}
judge_one() { # NAME CODE PATTERN
  if [ "$2" -eq 0 ] && grep -Eq -- "$3" <<<"$said"; then
    echo "passed $1" >>"$results"
  else
    echo "failed $1 ended with $2 and said: $(tr '\n' ' ' <<<"$said" | head -c 400)" >>"$results"
  fi
}
exec </dev/null

check topics-create "Created topic" topics --create --topic "$topic" --partitions 3 --replication-factor 1 --config retention.ms=86400000
check topics-create-compacted "Created topic" topics --create --topic "$topic-compacted" --config cleanup.policy=compact
check topics-list "^$topic\$" topics --list
check topics-describe "PartitionCount: 3.*ReplicationFactor: 1.*retention.ms=86400000" topics --describe --topic "$topic"
check topics-alter "^\$" topics --alter --topic "$topic" --partitions 4
check topics-altered "PartitionCount: 4" topics --describe --topic "$topic"
check topics-id "TopicId: $(grep -o 'TopicId: [^[:space:]]*' <<<"$said" | cut -d' ' -f2)" topics --describe --topic-id "$(grep -o 'TopicId: [^[:space:]]*' <<<"$said" | head -1 | cut -d' ' -f2)"
check topics-under-replicated "^\$" topics --describe --under-replicated-partitions

check configs-topic-set "Completed updating config for topic" configs --alter --topic "$topic" --add-config "max.message.bytes=2000000,retention.ms=3600000"
check configs-topic-told "max.message.bytes=2000000 sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG" configs --describe --topic "$topic"
check configs-topic-all "cleanup.policy=delete" configs --describe --topic "$topic" --all
check configs-topic-unset "Completed updating config for topic" configs --alter --topic "$topic" --delete-config max.message.bytes
check configs-broker-all "num.partitions=[0-9]+ sensitive=false" configs --describe --broker "$node_id" --all
check configs-broker-set "Completed updating config for broker" configs --alter --broker "$node_id" --add-config log.cleaner.threads=2
check configs-broker-told "log.cleaner.threads=2" configs --describe --broker "$node_id"
check configs-broker-unset "Completed updating config for broker" configs --alter --broker "$node_id" --delete-config log.cleaner.threads
check configs-cluster-set "Completed updating default config for brokers" configs --alter --entity-type brokers --entity-default --add-config log.retention.ms=604800000
check configs-cluster-unset "Completed updating default config for brokers" configs --alter --entity-type brokers --entity-default --delete-config log.retention.ms
check configs-group-set "Completed updating config for group" configs --alter --group "$group" --add-config consumer.session.timeout.ms=50000
check configs-group-told "consumer.session.timeout.ms=50000" configs --describe --group "$group"
check configs-user-set "Completed updating config for user" configs --alter --entity-type users --entity-name "user-$mark" --add-config "SCRAM-SHA-256=[iterations=4096,password=secret]"
check configs-user-told "SCRAM-SHA-256=iterations=4096" configs --describe --entity-type users --entity-name "user-$mark"
check configs-user-unset "Completed updating config for user" configs --alter --entity-type users --entity-name "user-$mark" --delete-config SCRAM-SHA-256
check configs-quota-set "Completed updating config" configs --alter --entity-type clients --entity-name "client-$mark" --add-config producer_byte_rate=1048576
check configs-quota-told "producer_byte_rate=1048576" configs --describe --entity-type clients --entity-name "client-$mark"
check configs-quota-unset "Completed updating config" configs --alter --entity-type clients --entity-name "client-$mark" --delete-config producer_byte_rate

check console-producer "^\$|^>" console-producer --topic "$topic" --reader-property parse.key=true --reader-property key.separator=: <<<"$(for i in $(seq 100); do echo "k$i:v$i"; done)"
check console-consumer "Processed a total of 100 messages" console-consumer --topic "$topic" --from-beginning --max-messages 100 --timeout-ms 20000 --group "$group"
check console-consumer-timestamps "CreateTime:[0-9]+" console-consumer --topic "$topic" --from-beginning --max-messages 1 --timeout-ms 20000 --formatter-property print.timestamp=true
check get-offsets "^$topic:0:[0-9]+" get-offsets --topic "$topic"
check get-offsets-earliest "^$topic:0:0\$" get-offsets --topic "$topic" --time earliest
check get-offsets-max-timestamp "^$topic:[0-9]:[0-9]+" get-offsets --topic "$topic" --time max-timestamp

check groups-list "^$group\$" consumer-groups --list
check groups-list-states "$group +Classic +Empty|$group +Empty" consumer-groups --list --state
check groups-list-all "$group +Classic +consumer" groups --list
check groups-describe "$group +$topic +0 +[0-9]+ +[0-9]+ +0 " consumer-groups --describe --group "$group"
check groups-state "$group +.*Empty" consumer-groups --describe --group "$group" --state
check groups-members "has no active members" consumer-groups --describe --group "$group" --members
check groups-reset "$group +$topic +0 +0" consumer-groups --reset-offsets --group "$group" --topic "$topic" --to-earliest --execute
check groups-reset-by-time "$group +$topic +0 +[0-9]+" consumer-groups --reset-offsets --group "$group" --topic "$topic" --to-datetime 2020-01-01T00:00:00.000 --execute
check groups-delete-offsets "Successful" consumer-groups --delete-offsets --group "$group" --topic "$topic:0"
check groups-delete "was successful" consumer-groups --delete --group "$group"

# The reply to a rule about a name that nobody has, so that nothing else is bound by it.
check acls-add "ALLOW" acls --add --allow-principal "User:nobody-$mark" --operation Read --topic "$topic-nowhere"
check acls-list "User:nobody-$mark.*READ|principal=User:nobody-$mark" acls --list --topic "$topic-nowhere"
check acls-add-prefixed "PREFIXED" acls --add --allow-principal "User:nobody-$mark" --producer --topic "nowhere-$mark" --resource-pattern-type prefixed
check acls-remove "^\$|Current ACLs|Removing" acls --remove --force --topic "$topic-nowhere"
check acls-remove-prefixed "^\$|Current ACLs|Removing" acls --remove --force --topic "nowhere-$mark" --resource-pattern-type prefixed

printf '{"partitions":[{"topic":"%s","partition":0,"offset":1}],"version":1}' "$topic" >"$work/records.json"
check delete-records "partition: $topic-0\s+low_watermark: 1" delete-records --offset-json-file "$work/records.json"
check get-offsets-after-delete "^$topic:0:1\$" get-offsets --topic "$topic" --time earliest
check log-dirs "\"partition\":\"$topic-0\"|$topic-0" log-dirs --describe --topic-list "$topic"
check features "transaction.version|metadata.version|Feature" features describe
check broker-api-versions "Fetch\(1\): 4 to" broker-api-versions
check metadata-quorum "LeaderId: +$node_id" metadata-quorum describe --status
check leader-election "^\$|Valid replica already elected|Successfully completed" leader-election --election-type preferred --all-topic-partitions
printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"replicas":[%s]}]}' "$topic" "$node_id" >"$work/moves.json"
check reassign "Successfully started partition reassignment" reassign-partitions --execute --reassignment-json-file "$work/moves.json"
check reassign-verify "is completed" reassign-partitions --verify --reassignment-json-file "$work/moves.json"
check reassign-list "No partition reassignments found" reassign-partitions --list
LIMIT=120

check verifiable-producer "\"acked\":2000|\"sent\":2000" verifiable-producer --topic "$topic-verified" --max-messages 2000 --acks -1
for protocol in classic consumer; do
  check "verifiable-consumer-$protocol" "\"name\":\"shutdown_complete\"" verifiable-consumer --topic "$topic-verified" --group-id "$group-$protocol" --group-protocol "$protocol" --reset-policy earliest --max-messages 2000
done
perf() { # NAME PATTERN TOOL ARGS..: the perf tools name the bootstrap servers each in its way
  local name=$1 pattern=$2 code
  shift 2
  wanted "$name" || return 0
  said=$(timeout --kill-after=5 120 "$here/kafka_tool" "$@" </dev/null 2>&1)
  code=$?
  judge_one "$name" "$code" "$pattern"
}
perf producer-perf "^100000 records sent" producer-perf --bootstrap-server "$BOOTSTRAP" --topic "$topic-perf" --num-records 100000 --record-size 512 --throughput -1 --command-property acks=all compression.type=lz4
perf producer-perf-transactions "^20000 records sent" producer-perf --bootstrap-server "$BOOTSTRAP" --topic "$topic-perf" --num-records 20000 --record-size 512 --throughput -1 --transactional-id "perf-$mark" --transaction-duration-ms 200
perf consumer-perf "^20[0-9]{2}-.*, 1[0-9]{5}, " consumer-perf --bootstrap-server "$BOOTSTRAP" --topic "$topic-perf" --num-records 100000 --timeout 30000
perf e2e-latency "Avg latency" e2e-latency --bootstrap-server "$BOOTSTRAP" --topic "$topic-latency" --num-records 300 --producer-acks all --record-size 100

check transactions-list "perf-$mark\s+$node_id\s+[0-9]+\s+CompleteCommit" transactions list
check transactions-describe "CompleteCommit" transactions describe --transactional-id "perf-$mark"
check transactions-producers "ProducerId" transactions describe-producers --topic "$topic-perf" --partition 0
check transactions-hanging "Topic|^\$" transactions find-hanging --broker-id "$node_id"
check topics-delete "^\$" topics --delete --topic "$topic"
check topics-deleted "^$topic-compacted\$" topics --list
judge
