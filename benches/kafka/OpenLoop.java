// java OpenLoop BOOTSTRAP TOPIC PAYLOADS RATE WARM_SECONDS SECONDS [NAME=VALUE ..]: how long acknowledgements take when records come
// at their own pace, whatever the broker does.
//
// Record n is due at the start plus n / RATE. It is sent then, or as soon after that as the client can, and its time runs from
// when it was due until its acknowledgement: a broker that stalls pays for every record that waited. PAYLOADS is a file with a
// record a line. Prints one line of JSON; `late` is how long after its time a record was sent, which the client or a full buffer
// is to blame for. Ends with 1 where a record was not acknowledged.

import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;

import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class OpenLoop {
    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[0], topic = arguments[1];
        byte[][] payloads = Files.readAllLines(Path.of(arguments[2])).stream().map(String::getBytes).toArray(byte[][]::new);
        long rate = Long.parseLong(arguments[3]);
        int warm = Math.toIntExact(rate * Long.parseLong(arguments[4])), count = Math.toIntExact(rate * Long.parseLong(arguments[5]));
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        for (String property : Arrays.copyOfRange(arguments, 6, arguments.length)) {
            String[] parts = property.split("=", 2);
            properties.put(parts[0], parts[1]);
        }

        try (var producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            // The connection and the topic's metadata are there before the clock starts, and what a cold client could not keep up with is
            // out of the way before the one that counts does.
            producer.partitionsFor(topic);
            new Run(producer, topic, payloads, rate, warm);
            Run run = new Run(producer, topic, payloads, rate, count);
            System.out.printf("{\"records\": %d, \"rate\": %.0f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f, \"late_p99_ms\": %.3f, \"late_p999_ms\": %.3f, \"client_gc_ms\": %d}%n",
                count, count / run.seconds, at(run.took, 0.5), at(run.took, 0.99), at(run.took, 0.999), at(run.took, 1), at(run.late, 0.99), at(run.late, 0.999), run.collectedMillis);
        }
    }

    /** So many records at their pace, until the last is acknowledged. */
    static final class Run {
        /** Nanoseconds per record, sorted. */
        final long[] took, late;
        final double seconds;
        final long collectedMillis;

        Run(KafkaProducer<byte[], byte[]> producer, String topic, byte[][] payloads, long rate, int count) {
            took = new long[count];
            late = new long[count];
            AtomicLong failed = new AtomicLong();
            AtomicReference<Exception> why = new AtomicReference<>();
            long collectedBefore = collectedMillis(), begun = System.nanoTime();
            for (int n = 0; n < count; n++) {
                long due = begun + n * 1_000_000_000L / rate;
                for (long ahead = due - System.nanoTime(); ahead > 0; ahead = due - System.nanoTime()) LockSupport.parkNanos(ahead);
                int index = n;
                late[n] = System.nanoTime() - due;
                producer.send(new ProducerRecord<>(topic, payloads[n % payloads.length]), (metadata, exception) -> {
                    took[index] = System.nanoTime() - due;
                    if (exception != null) {
                        failed.incrementAndGet();
                        why.compareAndSet(null, exception);
                    }
                });
            }
            producer.flush();
            seconds = (System.nanoTime() - begun) / 1e9;
            collectedMillis = collectedMillis() - collectedBefore;
            if (why.get() != null) {
                System.err.println(failed.get() + " records were not acknowledged, the first because of " + why.get());
                System.exit(1);
            }
            Arrays.sort(took);
            Arrays.sort(late);
        }
    }

    /** The smallest value that this share of all values does not exceed, in milliseconds. */
    static double at(long[] values, double share) {
        return values[Math.max(0, (int) Math.ceil(share * values.length) - 1)] / 1e6;
    }

    static long collectedMillis() {
        return ManagementFactory.getGarbageCollectorMXBeans().stream().mapToLong(GarbageCollectorMXBean::getCollectionTime).sum();
    }
}
