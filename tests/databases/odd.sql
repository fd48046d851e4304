-- Odd values, in rows with negative ids: one column after the other, the rest of the row is null.
-- :odd_zoned_times is 0 for a tap that ends at times with zones of half hours, or with microseconds.
SET search_path TO :schema;

INSERT INTO wide (id) VALUES (-1);

CREATE SEQUENCE odd START -1000 INCREMENT -1 MINVALUE -9999;
ALTER TABLE wide ALTER id SET DEFAULT nextval('odd');

INSERT INTO wide (c_smallint, c_int, c_bigint) VALUES
    (-32768, -2147483648, -9223372036854775808),
    (32767, 2147483647, 9223372036854775807),
    (0, 0, 0);
INSERT INTO wide (c_numeric) VALUES
    ('NaN'), ('Infinity'), ('-Infinity'), (0), (-0.0), (0.67000000000000003996), (1e-30), (1e-400),
    (1e308), (1e400), (-1e400), (123456789012345678901234567890.123456789), (0.10), (1e22), (1e23),
    (9007199254740993), (2.5e-324), (1.00000000000000011102230246251565404);
INSERT INTO wide (c_num_18_4) VALUES (-99999999999999.9999), (99999999999999.9999), (0), ('NaN');
INSERT INTO wide (c_num_38_0) VALUES (repeat('9', 38)::numeric), (-repeat('9', 38)::numeric), (7);
INSERT INTO wide (c_real) VALUES
    ('NaN'), ('Infinity'), ('-Infinity'), (3.4028235e38), (1e-45), ('-0'), (16777217);
INSERT INTO wide (c_double) VALUES
    ('NaN'), ('Infinity'), ('-Infinity'), (1.7976931348623157e308), (5e-324), ('-0'), (0.1), (1e16);
INSERT INTO wide (c_text) VALUES
    (''), (' '), (E'\n'), (E'tab\tquote"backslash\\slash/'), (E'\x01\x1f\x7f'), ('null'), ('NULL'),
    (E'\u2028\u2029\ufeff\u200d'), ('😀👩‍👩‍👧'), (E'e\u0301'), ('ﷺ'), (E'\r\n'), ('\N'), ('\u00e4'),
    (E'\ufffe\uffff'), ('1'), ('{"a":1}');
INSERT INTO wide (c_varchar) VALUES (repeat('漢', 80)), ('');
INSERT INTO wide (c_char) VALUES (''), ('abcde'), ('ü');
INSERT INTO wide (c_longtext) VALUES (repeat('ü', 6000)), (repeat('😀', 3000)), ('');
INSERT INTO wide (c_date) VALUES
    ('0001-01-01'), ('9999-12-31'), ('1399-12-31'), ('1582-10-10'), ('1970-01-01'), ('2024-02-29');
INSERT INTO wide (c_time) VALUES ('00:00'), ('23:59:59.999999'), ('24:00'), ('12:00:00.1');
INSERT INTO wide (c_timetz) VALUES ('00:00+00'), ('00:00-08');
\if :odd_zoned_times
    INSERT INTO wide (c_timetz) VALUES ('23:59:59.999999-15:59'), ('12:00+05:30');
\endif
INSERT INTO wide (c_ts) VALUES
    ('0001-01-01 00:00'), ('9999-12-31 23:59:59.999999'), ('1399-12-31 23:59:59.999999'),
    ('1969-12-31 23:59:59.999999'), ('1582-10-10 12:00'), ('2262-04-11 23:47:16.854776'),
    ('1677-09-21 00:12:43.145224'), ('2024-10-27 02:30:00.000001');
INSERT INTO wide (c_tstz, updated_at) VALUES
    ('1900-01-01 00:00+00', '9999-12-30 23:59:59.999999+00'),
    ('1969-12-31 23:59:59.999999+00', '2024-10-27 00:30+00'),
    ('1969-12-31 23:00+00', '2024-10-27 01:30+00');
INSERT INTO wide (c_interval) VALUES
    ('-1 day'), ('0'), ('1 mon'), ('1 year 2 mons 3 days 04:05:06.789'), ('-1.5 seconds');
INSERT INTO wide (c_json) VALUES
    ('null'), ('true'), ('0'), ('-0'), ('1.10'), ('1e400'), ('12345678901234567890'), ('"text"'), ('""'),
    ('[]'), ('{}'), ('[[], {}, ""]'), ('{"b": 1, "a": 2, "b": 3}'), ('{"a": "\ud83d\ude00 \u00e9"}'),
    ('{"a": "\u0000"}'), ('{"a": "\ud800"}'), ('{"a": "\\ud800 \udc00 \ud83d\ude00"}'), ('"2024-01-01T00:00:00Z"'), ('1e2'), ('"1"');
INSERT INTO wide (c_jsonb) VALUES
    ('null'), ('false'), ('3'), ('-0.0'), ('1.10'), ('1e40'), ('12345678901234567890123'), ('"text"'),
    ('[1, [2, {"x": [null]}]]'), ('{"": "", " ": "\t"}'), ('{"a": "\u2028</script>"}');
INSERT INTO wide (c_intarr) VALUES ('{}'), ('{{1,2},{3,NULL}}'), ('{NULL}'), ('[0:1]={-1,1}');
INSERT INTO wide (c_textarr) VALUES ('{}'), (ARRAY['', 'NULL', NULL, ',', '{}', E'\n']), ('{{a},{b}}');
INSERT INTO wide (c_uuid) VALUES ('00000000-0000-0000-0000-000000000000');
INSERT INTO wide (c_bytea) VALUES (''), ('\x00'), ('\xff00ff'), ('\xc3a4'), (decode(repeat('ab', 500), 'hex'));
INSERT INTO wide (c_inet) VALUES ('::1'), ('10.1.2.3/8'), ('fe80::/10'), ('255.255.255.255');
INSERT INTO wide (c_posint) VALUES (2147483647), (1);
INSERT INTO wide (c_money) VALUES (-1234567.89), (0), (92233720368547758.07);
INSERT INTO wide (c_bit) VALUES ('00000000'), ('11111111');
INSERT INTO wide (c_xml) VALUES
    ('<a b="c">&lt;ü&#228;</a>'), ('text only'), ('<?xml version="1.0"?><a><![CDATA[x]]></a>'), ('');
INSERT INTO wide (c_range) VALUES ('empty'), ('(,)'), ('[,5]'), ('[1,1]');
INSERT INTO wide (c_point) VALUES ('(NaN,Infinity)'), ('(0,-0)'), ('(1e300,1e-300)');
INSERT INTO wide (c_hstoreish) VALUES ('{"key": "value", "none": null}');
INSERT INTO wide ("Mixed Case", "ünïcode") VALUES ('', ''), ('Ü', 'ß');
