CREATE TABLE public.alias (
    name character varying(200) NOT NULL,
    alias character varying(64) NOT NULL,
    number integer NOT NULL
);

CREATE TABLE public.event (
    seq integer NOT NULL,
    at character varying(32) NOT NULL,
    name character varying(200) NOT NULL,
    kind character varying(40) NOT NULL,
    detail json NOT NULL
);

CREATE SEQUENCE public.event_seq_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.event_seq_seq OWNED BY public.event.seq;

CREATE TABLE public.metric (
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    metric character varying(200) NOT NULL,
    "position" integer NOT NULL,
    value double precision NOT NULL,
    low double precision,
    high double precision
);

CREATE TABLE public.schema_version (
    number integer NOT NULL
);

CREATE TABLE public.series (
    name character varying(200) NOT NULL,
    last integer NOT NULL
);

CREATE TABLE public.version (
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    engine_key character varying(64) NOT NULL,
    identity character varying(64) NOT NULL,
    verdict character varying(20) NOT NULL,
    recipe json NOT NULL,
    lineage json NOT NULL,
    checks json NOT NULL,
    facts json NOT NULL,
    published_at character varying(32) NOT NULL
);

ALTER TABLE ONLY public.event ALTER COLUMN seq SET DEFAULT nextval('public.event_seq_seq'::regclass);

INSERT INTO public.alias VALUES ('demo/fp8', 'candidate', 3);
INSERT INTO public.alias VALUES ('demo/fp8', 'prod', 2);
INSERT INTO public.alias VALUES ('demo/int4', 'candidate', 1);

INSERT INTO public.event VALUES (1, '2026-11-21T11:45:19.438301+00:00', 'demo/fp8', 'published', '{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000001", "verdict": "PASS"}');
INSERT INTO public.event VALUES (2, '2026-11-21T11:45:19.440559+00:00', 'demo/fp8', 'alias_moved', '{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO public.event VALUES (3, '2026-11-21T11:45:19.450439+00:00', 'demo/fp8', 'published', '{"number": 2, "engine_key": "0000000000000000000000000000000000000000000000000000000000000002", "verdict": "PASS"}');
INSERT INTO public.event VALUES (4, '2026-11-21T11:45:19.452208+00:00', 'demo/fp8', 'alias_moved', '{"alias": "candidate", "was": 1, "now": 2}');
INSERT INTO public.event VALUES (5, '2026-11-21T11:45:19.461500+00:00', 'demo/fp8', 'published', '{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003", "verdict": "PASS"}');
INSERT INTO public.event VALUES (6, '2026-11-21T11:45:19.463037+00:00', 'demo/fp8', 'alias_moved', '{"alias": "candidate", "was": 2, "now": 3}');
INSERT INTO public.event VALUES (7, '2026-11-21T11:45:19.481019+00:00', 'demo/fp8', 'alias_moved', '{"alias": "prod", "was": null, "now": 1}');
INSERT INTO public.event VALUES (8, '2026-11-21T11:45:19.499451+00:00', 'demo/fp8', 'alias_moved', '{"alias": "prod", "was": 1, "now": 2}');
INSERT INTO public.event VALUES (9, '2026-11-21T11:45:19.511699+00:00', 'Demo/FP8', 'published', '{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000004", "verdict": "PASS"}');
INSERT INTO public.event VALUES (10, '2026-11-21T11:45:19.522070+00:00', 'demo/int4', 'published', '{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000005", "verdict": "PASS"}');
INSERT INTO public.event VALUES (11, '2026-11-21T11:45:19.523337+00:00', 'demo/int4', 'alias_moved', '{"alias": "candidate", "was": null, "now": 1}');

INSERT INTO public.metric VALUES ('demo/fp8', 1, 'tokens_per_s', 0, 813.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 1, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'tokens_per_s', 0, 814.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'tokens_per_s', 0, 815.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('Demo/FP8', 1, 'tokens_per_s', 0, 816.5, NULL, NULL);
INSERT INTO public.metric VALUES ('Demo/FP8', 1, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/int4', 1, 'tokens_per_s', 0, 817.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/int4', 1, 'kl', 1, 0.01, 0.008, 0.012);

INSERT INTO public.schema_version VALUES (1);

INSERT INTO public.series VALUES ('demo/fp8', 3);
INSERT INTO public.series VALUES ('Demo/FP8', 1);
INSERT INTO public.series VALUES ('demo/int4', 1);

INSERT INTO public.version VALUES ('demo/fp8', 1, '0000000000000000000000000000000000000000000000000000000000000001', '6c019c1df38ba8455c36b2949a232a2a6365ee8914b56f9f2ae3c6621d0d297b', 'PASS', '{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 1}', '{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000001"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}', '2026-11-21T11:45:19.436431+00:00');
INSERT INTO public.version VALUES ('demo/fp8', 2, '0000000000000000000000000000000000000000000000000000000000000002', 'f3e8ab9e3bb564a67b5860b76a5c8319581b4a61c013b050fb14991f3728075e', 'PASS', '{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 2}', '{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000002"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}', '2026-11-21T11:45:19.449379+00:00');
INSERT INTO public.version VALUES ('demo/fp8', 3, '0000000000000000000000000000000000000000000000000000000000000003', '01bfb7d49786ddeae30bc0138b5077d2e8c92bdfd9420335ea5c0132eaf47877', 'PASS', '{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 3}', '{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000003"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}', '2026-11-21T11:45:19.460452+00:00');
INSERT INTO public.version VALUES ('Demo/FP8', 1, '0000000000000000000000000000000000000000000000000000000000000004', 'f7646fb255103d80b20e8a56a979f827071211ce8ee9e04271c45120ee7d1976', 'PASS', '{"version": 1, "name": "Demo/FP8", "model": {"path": "checkpoints/tiny"}, "n": 4}', '{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000004"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}', '2026-11-21T11:45:19.510594+00:00');
INSERT INTO public.version VALUES ('demo/int4', 1, '0000000000000000000000000000000000000000000000000000000000000005', '32e7f080273163e3d8e5f9cce76cee186ae06b0aa3d07715dec21cd88bce022a', 'PASS', '{"version": 1, "name": "demo/int4", "model": {"path": "checkpoints/tiny"}, "n": 5}', '{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000005"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"backend": "aoti", "format": "int4_awq", "dtype": "bfloat16", "tp": 1, "pp": 1, "world_size": 1, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11], "note": "na\u00efve \ud83d\ude80 ''quoted''"}', '2026-11-21T11:45:19.520996+00:00');

SELECT pg_catalog.setval('public.event_seq_seq', 11, true);

ALTER TABLE ONLY public.alias
    ADD CONSTRAINT alias_pkey PRIMARY KEY (name, alias);

ALTER TABLE ONLY public.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_pkey PRIMARY KEY (name, number, metric);

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_name_identity_key UNIQUE (name, identity);

ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_pkey PRIMARY KEY (name, number);

CREATE INDEX ix_event_name ON public.event USING btree (name);

CREATE INDEX ix_version_engine_key ON public.version USING btree (engine_key);

ALTER TABLE ONLY public.alias
    ADD CONSTRAINT alias_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);

ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);

ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_name_fkey FOREIGN KEY (name) REFERENCES public.series(name);

