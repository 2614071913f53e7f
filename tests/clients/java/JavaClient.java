// java JavaClient BOOTSTRAP: the client everything else is measured by, with its defaults (idempotent, acks=all).

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public final class JavaClient {
    static final int COUNT = 10_000, PARTITIONS = 4;
    static final Duration PATIENCE = Duration.ofSeconds(60);
    static String server, run = ProcessHandle.current().pid() + "-" + System.currentTimeMillis();
    static Admin admin;
    static int passed, failed;

    record Sent(String key, String value, List<String> headers) {}

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
    }

    static String topic(String of) {
        return "clients.java." + of + "." + run;
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int i) {
        String key = i % 100 == 99 ? null : "patient-" + i % 97;
        String value = key != null && i % 50 == 7 ? null : "{\"n\":" + i + ",\"text\":\"" + "hr spo2 ".repeat(i % 12) + "\"}";
        List<Header> headers = new ArrayList<>();
        if (i % 3 != 0) {
            headers.add(new RecordHeader("n", bytes(Integer.toString(i))));
            headers.add(new RecordHeader("unit", bytes("mmHg")));
            headers.add(new RecordHeader("unit", bytes("/min äöü")));
        }
        if (i % 10 == 3) headers.add(new RecordHeader("nothing", (byte[]) null));
        if (i % 10 == 4) headers.add(new RecordHeader("empty", new byte[0]));
        return new ProducerRecord<>(topic, null, bytes(key), bytes(value), headers);
    }

    static Sent plain(byte[] key, byte[] value, Iterable<Header> headers) {
        List<String> list = new ArrayList<>();
        for (Header h : headers) list.add(h.key() + "=" + text(h.value()));
        return new Sent(text(key), text(value), list);
    }

    static String make(String of, int partitions) throws Exception {
        String topic = topic(of);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get(60, TimeUnit.SECONDS);
        return topic;
    }

    static Map<Integer, List<Long>> send(String topic, int count, String... options) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", server);
        p.put("linger.ms", "5");
        p.put("delivery.timeout.ms", "60000");
        p.put("request.timeout.ms", "20000");
        for (int i = 0; i < options.length; i += 2) p.put(options[i], options[i + 1]);
        Map<Integer, List<Long>> offsets = new TreeMap<>();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> told = new ArrayList<>();
            for (int i = 0; i < count; i++) told.add(producer.send(record(topic, i)));
            producer.flush();
            for (Future<RecordMetadata> f : told) offsets.computeIfAbsent(f.get().partition(), x -> new ArrayList<>()).add(f.get().offset());
        }
        return offsets;
    }

    static KafkaConsumer<byte[], byte[]> consumer(String... options) {
        Properties p = new Properties();
        p.put("bootstrap.servers", server);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        p.put("check.crcs", "true");
        p.put("isolation.level", "read_committed");
        for (int i = 0; i < options.length; i += 2) p.put(options[i], options[i + 1]);
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<TopicPartition> places(String topic) {
        List<TopicPartition> all = new ArrayList<>();
        for (int i = 0; i < PARTITIONS; i++) all.add(new TopicPartition(topic, i));
        return all;
    }

    static String roundTrip(String name, String... options) throws Exception {
        String topic = make(name, PARTITIONS);
        for (List<Long> told : send(topic, COUNT, options).values())
            for (int i = 0; i < told.size(); i++)
                if (told.get(i) != i) return "the acknowledged offsets have gaps or are out of order";
        Map<String, List<Sent>> sent = new HashMap<>(), got = new HashMap<>();
        for (int i = 0; i < COUNT; i++) {
            ProducerRecord<byte[], byte[]> r = record(topic, i);
            sent.computeIfAbsent(text(r.key()), x -> new ArrayList<>()).add(plain(r.key(), r.value(), r.headers()));
        }
        Map<String, Integer> place = new HashMap<>();
        int[] total = {0};
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            c.assign(places(topic));
            c.seekToBeginning(places(topic));
            until(() -> {
                for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(500))) {
                    String key = text(r.key());
                    if (key != null && place.computeIfAbsent(key, x -> r.partition()) != r.partition()) throw new IllegalStateException("key " + key + " is in two partitions");
                    got.computeIfAbsent(key, x -> new ArrayList<>()).add(plain(r.key(), r.value(), r.headers()));
                    total[0]++;
                }
                return total[0] >= COUNT;
            });
        }
        if (total[0] != COUNT) return total[0] + " records instead of " + COUNT;
        for (Map<String, List<Sent>> side : List.of(sent, got)) side.getOrDefault(null, new ArrayList<>()).sort((a, b) -> a.toString().compareTo(b.toString()));
        for (String key : sent.keySet()) if (!Objects.equals(sent.get(key), got.get(key))) return "key " + key + " reads differently";
        return null;
    }

    static String group() throws Exception {
        String topic = make("group", PARTITIONS), name = "g-" + run;
        send(topic, COUNT);
        Set<String> seen = new HashSet<>();
        String[] settings = {"group.id", name, "session.timeout.ms", "10000", "heartbeat.interval.ms", "500", "max.poll.records", "2000"};
        List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>(List.of(consumer(settings), consumer(settings)));
        for (KafkaConsumer<byte[], byte[]> m : members) m.subscribe(List.of(topic));
        try {
            boolean shared = until(() -> {
                for (KafkaConsumer<byte[], byte[]> m : members) poll(m, seen);
                Set<TopicPartition> a = members.get(0).assignment(), b = members.get(1).assignment();
                return !a.isEmpty() && !b.isEmpty() && Collections.disjoint(a, b) && a.size() + b.size() == PARTITIONS && seen.size() == COUNT;
            });
            String shares = members.get(0).assignment() + " and " + members.get(1).assignment();
            if (!shared) return "not shared: " + shares + ", " + seen.size() + " records";
            shares = members.get(0).assignment().size() + " and " + members.get(1).assignment().size();
            var described = admin.describeConsumerGroups(List.of(name)).all().get(60, TimeUnit.SECONDS).get(name);
            if (described.members().size() != 2) return "the group is described with " + described.members().size() + " members";
            members.remove(0).close();
            KafkaConsumer<byte[], byte[]> left = members.get(0);
            if (!until(() -> { poll(left, seen); return left.assignment().size() == PARTITIONS; })) return "not taken over: " + left.assignment();
            send(topic, 1000);
            if (!until(() -> { poll(left, seen); return seen.size() == COUNT + 1000; })) return seen.size() + " records seen";
            left.commitSync(PATIENCE);
            long committed = admin.listConsumerGroupOffsets(name).partitionsToOffsetAndMetadata().get(60, TimeUnit.SECONDS).values().stream().mapToLong(o -> o.offset()).sum();
            return committed == COUNT + 1000 ? "~shares " + shares + ", then all" : committed + " committed";
        } finally {
            for (KafkaConsumer<byte[], byte[]> m : members) m.close();
        }
    }

    static void poll(KafkaConsumer<byte[], byte[]> who, Set<String> seen) {
        for (ConsumerRecord<byte[], byte[]> r : who.poll(Duration.ofMillis(100))) seen.add(r.partition() + "/" + r.offset());
        try {
            who.commitSync(PATIENCE);
        } catch (CommitFailedException | RebalanceInProgressException gathering) {
            // The group gathers anew; the next commit carries the same positions.
        }
    }

    static String administration() throws Exception {
        String topic = make("admin", 2);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get(60, TimeUnit.SECONDS);
        int partitions = admin.describeTopics(List.of(topic)).allTopicNames().get(60, TimeUnit.SECONDS).get(topic).partitions().size();
        ConfigResource of = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        String retention = admin.describeConfigs(List.of(of)).all().get(60, TimeUnit.SECONDS).get(of).get("retention.ms").value();
        int nodes = admin.describeCluster().nodes().get(60, TimeUnit.SECONDS).size();
        admin.deleteTopics(List.of(topic)).all().get(60, TimeUnit.SECONDS);
        boolean gone = until(() -> { try { return !admin.listTopics().names().get().contains(topic); } catch (Exception e) { return false; } });
        return partitions == 5 && nodes == 1 && gone && Long.parseLong(retention) > 0 ? null : partitions + " partitions, " + nodes + " nodes, gone: " + gone + ", retention " + retention;
    }

    static String times() throws Exception {
        String topic = make("times", 1);
        Properties p = new Properties();
        p.put("bootstrap.servers", server);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int i = 0; i < 100; i++) producer.send(new ProducerRecord<>(topic, 0, 1_700_000_000_000L + i * 1000, null, bytes("x")));
        }
        try (KafkaConsumer<byte[], byte[]> c = consumer()) {
            TopicPartition place = new TopicPartition(topic, 0);
            long found = c.offsetsForTimes(Map.of(place, 1_700_000_040_500L)).get(place).offset();
            long end = c.endOffsets(List.of(place)).get(place), begin = c.beginningOffsets(List.of(place)).get(place);
            return found == 41 && begin == 0 && end == 100 ? null : found + ", " + begin + ".." + end;
        }
    }

    static boolean until(BooleanSupplier ready) {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (System.nanoTime() < end) if (ready.getAsBoolean()) return true;
        return false;
    }

    static void tried(String name, Callable<String> step) {
        long begun = System.nanoTime();
        String said;
        try {
            said = step.call();
        } catch (Exception error) {
            said = error.toString();
        }
        boolean ok = said == null || said.startsWith("~");
        if (ok) passed++; else failed++;
        System.out.printf("%s %s %s (%.1f s)%n", ok ? "ok  " : "FAIL", name, said == null ? "" : said.replaceFirst("^~", ""), (System.nanoTime() - begun) / 1e9);
    }

    public static void main(String[] arguments) {
        server = arguments[0];
        admin = Admin.create(Map.of("bootstrap.servers", server));
        System.out.println("# java kafka-clients " + AppInfoParser.getVersion());
        for (String codec : Arrays.asList("none", "gzip", "snappy", "lz4", "zstd")) tried("produce and consume " + COUNT + " records, " + codec, () -> roundTrip(codec, "compression.type", codec));
        tried("without idempotence", () -> roundTrip("plain", "enable.idempotence", "false", "max.in.flight.requests.per.connection", "1", "compression.type", "lz4"));
        tried("topics, configurations, cluster", JavaClient::administration);
        tried("offsets by time", JavaClient::times);
        tried("two consumers share and take over", JavaClient::group);
        admin.close(Duration.ofSeconds(5));
        System.out.println("java: " + passed + " passed, " + failed + " failed");
        System.exit(failed > 0 || passed == 0 ? 1 : 0);
    }
}
