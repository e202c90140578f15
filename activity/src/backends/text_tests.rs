use super::super::Worker;
use super::*;

fn seen() -> Seen {
    let mut seen = Seen::default();
    let mut counted = Counted {
        requests: 10,
        in_flight: 2,
        failures: 1,
        time: 1_234,
        ..Counted::default()
    };
    counted.times[0] = 3;
    counted.times[14] = 1;
    let entry = Entry {
        last_answer: 900,
        ejections: 4,
        counted,
        ..Entry::default()
    };
    seen.backends.insert(7, entry);
    seen.workers.push(Worker {
        pid: 11,
        generation: 5,
        parked: 6,
    });
    seen
}

fn named(name: &str) -> Named<'_> {
    Named {
        id: 7,
        name,
        address: "[::1]:80".to_owned(),
        state: "active".to_owned(),
        health: "in-service",
        serves: true,
    }
}

#[test]
fn json_says_all_of_it() {
    let new = Named {
        id: 8,
        ..named("new")
    };
    assert_eq!(
        json(&seen(), &[named("b1"), new], 1_000),
        "{\"workers\":[{\"pid\":11,\"table_generation\":5,\"parked\":6}],\"backends\":[\
         {\"id\":7,\"name\":\"b1\",\"address\":\"[::1]:80\",\"state\":\"active\",\"health\":\"in-service\",\
         \"requests\":10,\"failures\":1,\"ejections\":4,\"in_flight\":2,\"last_answer_ms_ago\":100,\"last_failure_ms_ago\":null,\
         \"first_byte_ms\":{\"bounds\":[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000],\
         \"counts\":[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],\"sum\":1234}},\
         {\"id\":8,\"name\":\"new\",\"address\":\"[::1]:80\",\"state\":\"active\",\"health\":\"in-service\",\
         \"requests\":0,\"failures\":0,\"ejections\":0,\"in_flight\":0,\"last_answer_ms_ago\":null,\"last_failure_ms_ago\":null,\
         \"first_byte_ms\":{\"bounds\":[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000],\
         \"counts\":[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],\"sum\":0}}]}\n"
    );
}

#[test]
fn prometheus_gets_cumulative_classes_in_seconds() {
    let text = prometheus(&seen(), &[named("b1")]);
    for line in [
        "paas_backend_requests_total{backend=\"b1\"} 10",
        "paas_backend_first_byte_seconds_bucket{backend=\"b1\",le=\"0.001\"} 3",
        "paas_backend_first_byte_seconds_bucket{backend=\"b1\",le=\"30\"} 3",
        "paas_backend_first_byte_seconds_bucket{backend=\"b1\",le=\"+Inf\"} 4",
        "paas_backend_first_byte_seconds_sum{backend=\"b1\"} 1.234",
        "paas_backend_first_byte_seconds_count{backend=\"b1\"} 4",
        "paas_worker_parked_requests{pid=\"11\"} 6",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    let families = text.matches("# TYPE ").count();
    assert_eq!(families, text.matches("# HELP ").count());
    assert_eq!(families, 8);
}

#[test]
fn a_name_cannot_end_its_string() {
    assert_eq!(quoted("a\"b\\c\nd\u{1}"), "\"a\\\"b\\\\c\\nd\\u0001\"");
}
