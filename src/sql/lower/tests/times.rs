//! The event time that a stream of a query's results has by itself.

use super::*;

/// The column and its WATERMARK, of a query over a stream of so many partitions.
fn time(sql: &str, partitions: i32) -> String {
    let murmur2 = |name: &str| sources(partitions).source(name).map(|of| Source { is_murmur2: name == "vitals", ..of });
    let plan = plan(&select(&format!("{sql} EMIT CHANGES")).unwrap(), &murmur2, Purpose::ExactlyOnce);
    let plan = plan.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    let of = |time: &ResultTime| {
        let name = plan.schema.field(time.column).name();
        format!("{name} AS {}", time.watermark(name))
    };
    plan.event_time.as_ref().map_or_else(|| "none".to_owned(), of)
}

const WINDOW: &str = "FROM TABLE(TUMBLE(TABLE nokey, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY";

#[test]
fn results_in_order_of_time_have_their_own_time_and_others_that_of_the_input() {
    for (sql, one, many) in [
        ("SELECT ts, hr FROM nokey", "ts AS ts - INTERVAL '5' SECOND", "ts AS ts - INTERVAL '5' SECOND"),
        ("SELECT hr, ts AS at FROM nokey WHERE hr > 5", "at AS at - INTERVAL '5' SECOND", "at AS at - INTERVAL '5' SECOND"),
        ("SELECT ts, ts AS at FROM nokey", "none", "none"),
        ("SELECT hr FROM nokey", "none", "none"),
        ("SELECT ts + INTERVAL '1' SECOND AS at FROM nokey", "none", "none"),
        // The key that is checked to lie where results are put, and one that is not.
        ("SELECT patient_id, ts FROM vitals", "ts AS ts - INTERVAL '5' SECOND", "ts AS ts - INTERVAL '5' SECOND"),
        ("SELECT patient_id, ts FROM labs", "ts AS ts - INTERVAL '5' SECOND", "none"),
        ("SELECT ts, avg(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS m FROM nokey", "ts AS ts", "ts AS ts"),
        ("SELECT patient_id, ts, lag(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS l FROM labs", "ts AS ts", "none"),
        ("SELECT patient_id, ts, lead(hr) OVER (PARTITION BY patient_id ORDER BY ts) AS l FROM vitals", "none", "none"),
        ("SELECT patient_id, count(*) AS n FROM nokey GROUP BY patient_id", "none", "none"),
        ("SELECT patient_id, ts, count(*) AS n FROM nokey GROUP BY patient_id, ts", "ts AS ts", "ts AS ts"),
        ("SELECT a.ts FROM vitals a JOIN labs b ON a.patient_id = b.patient_id AND a.ts = b.ts", "none", "none"),
    ] {
        assert_eq!(time(sql, 1), one, "{sql}");
        assert_eq!(time(sql, 4), many, "{sql} over 4 partitions");
    }
    for (columns, by, one, many) in [
        ("window_time, count(*) AS n", "window_start, window_end, window_time", "window_time AS window_time", "window_time AS window_time"),
        ("window_end, window_time AS at", "window_start, window_end, window_time", "at AS at", "at AS at"),
        ("window_end, count(*) AS n", "window_start, window_end", "none", "none"),
        // One task over all partitions writes them in order.
        (
            "ward, window_time, count(*) AS n",
            "ward, window_start, window_end, window_time",
            "window_time AS window_time",
            "window_time AS window_time",
        ),
    ] {
        assert_eq!(time(&format!("SELECT {columns} {WINDOW} {by}"), 1), one, "{columns}");
        assert_eq!(time(&format!("SELECT {columns} {WINDOW} {by}"), 4), many, "{columns} over 4 partitions");
    }
    let keyed = |stream: &str| {
        format!("SELECT patient_id, window_time {} patient_id, window_start, window_end, window_time", WINDOW.replace("nokey", stream))
    };
    assert_eq!(time(&keyed("vitals"), 4), "window_time AS window_time");
    assert_eq!(time(&keyed("labs"), 4), "none");
}
