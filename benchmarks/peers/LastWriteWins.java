import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.io.FileInputStream;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * What stands for each entity is its event with the latest clock, the clock's counter, region and id breaking ties: the
 * rule `last_update_wins` of mrc as one would write it with Kafka Streams.
 *
 * Reads the events of all topics that are named, reads their JSON as a rule would, keeps the last one of each key in a
 * RocksDB store with a changelog, and writes it to the last topic that is named. Settings come from a file.
 *
 * Usage: LastWriteWins SETTINGS EVENTS-WARM EVENTS TOPIC... RESULT. Prints `seconds COUNT S CPU` for the events behind
 * the first EVENTS-WARM, from when these had been read until all were read and committed, and ends; CPU is of the whole process.
 */
public final class LastWriteWins {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] words) throws Exception {
        Properties settings = new Properties();
        try (FileInputStream file = new FileInputStream(words[0])) {
            settings.load(file);
        }
        long warm = Long.parseLong(words[1]);
        long events = Long.parseLong(words[2]);
        List<String> topics = Arrays.asList(words).subList(3, words.length - 1);
        AtomicLong read = new AtomicLong();
        AtomicLong warmAt = new AtomicLong();
        AtomicLong warmCpu = new AtomicLong();
        OperatingSystemMXBean system = ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);
        CountDownLatch all = new CountDownLatch(1);

        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(topics, Consumed.with(Serdes.Bytes(), Serdes.ByteArray()))
            .processValues(() -> new ContextualFixedKeyProcessor<Bytes, byte[], byte[]>() {
                @Override
                public void process(FixedKeyRecord<Bytes, byte[]> record) {
                    context().forward(record.withValue(stamped(record)));
                    long count = read.incrementAndGet();
                    if (count == warm) {
                        warmAt.set(System.nanoTime());
                        warmCpu.set(system.getProcessCpuTime());
                    }
                    if (count == events) {
                        all.countDown();
                    }
                }
            })
            .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.ByteArray()))
            .reduce(LastWriteWins::later, Materialized.<Bytes, byte[], KeyValueStore<Bytes, byte[]>>as("standing")
                .withKeySerde(Serdes.Bytes()).withValueSerde(Serdes.ByteArray()).withCachingEnabled().withLoggingEnabled(java.util.Map.of()))
            .toStream()
            .mapValues(LastWriteWins::body)
            .to(words[words.length - 1], Produced.with(Serdes.Bytes(), Serdes.ByteArray()));

        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        streams.start();
        all.await();
        // Commits what has been read; then it is as durable as what the resolver counts.
        streams.close();
        double seconds = (System.nanoTime() - warmAt.get()) / 1e9;
        System.out.printf("seconds %d %.3f %.3f%n", events - warm, seconds, (system.getProcessCpuTime() - warmCpu.get()) / 1e9);
    }

    /** Puts an event's clock, origin and id before its value, and refuses what is no event. */
    private static byte[] stamped(FixedKeyRecord<Bytes, byte[]> record) {
        String clock = header(record, "mrc-hlc");
        int dot = clock.indexOf('.');
        byte[] tie = (header(record, "mrc-origin") + "\0" + header(record, "mrc-event-id")).getBytes(StandardCharsets.UTF_8);
        byte[] value = record.value();
        try {
            JsonNode event = JSON.readTree(value).get("event");
            if (event == null || !event.isTextual()) {
                throw new IllegalStateException("an event without a type");
            }
        } catch (java.io.IOException error) {
            throw new IllegalStateException("an event that is not JSON", error);
        }
        return ByteBuffer.allocate(16 + tie.length + value.length)
            .putLong(Long.parseLong(clock, 0, dot, 10)).putInt(Integer.parseInt(clock, dot + 1, clock.length(), 10))
            .putInt(tie.length).put(tie).put(value).array();
    }

    private static String header(FixedKeyRecord<Bytes, byte[]> record, String name) {
        Header found = record.headers().lastHeader(name);
        if (found == null) {
            throw new IllegalStateException("an event without " + name);
        }
        return new String(found.value(), StandardCharsets.UTF_8);
    }

    private static byte[] later(byte[] standing, byte[] event) {
        int clock = Arrays.compare(standing, 0, 12, event, 0, 12);
        int order = clock != 0 ? clock : Arrays.compareUnsigned(standing, 16, bodyAt(standing), event, 16, bodyAt(event));
        return order < 0 ? event : standing;
    }

    private static int bodyAt(byte[] stamped) {
        return 16 + ByteBuffer.wrap(stamped).getInt(12);
    }

    private static byte[] body(byte[] stamped) {
        return Arrays.copyOfRange(stamped, bodyAt(stamped), stamped.length);
    }
}
