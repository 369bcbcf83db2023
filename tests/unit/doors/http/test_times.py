from doors.http.times import iso


def test_moments_are_in_utc_to_the_millisecond() -> None:
    assert iso(0.0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
