CREATE FUNCTION public.event_only_grows() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'events are only added'; END $$;
CREATE TABLE public.alias (
    name character varying(200) NOT NULL,
    alias character varying(64) NOT NULL,
    number integer NOT NULL,
    moved_at character varying(32) NOT NULL,
    moved_by character varying(200) NOT NULL
);
CREATE TABLE public.attestation (
    engine_key character varying(64) NOT NULL,
    key_id character varying(64) NOT NULL,
    bundle text NOT NULL,
    signed_at character varying(32) NOT NULL,
    signed_by character varying(200) NOT NULL
);
CREATE TABLE public.delivery (
    subscription integer NOT NULL,
    seq integer NOT NULL,
    attempts integer NOT NULL,
    next_at character varying(32),
    done_at character varying(32),
    problem text
);
CREATE TABLE public.event (
    seq integer NOT NULL,
    at character varying(32) NOT NULL,
    name character varying(200) NOT NULL,
    kind character varying(40) NOT NULL,
    by character varying(200) NOT NULL,
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
CREATE TABLE public.facts (
    id character varying(64) NOT NULL,
    facts json NOT NULL
);
CREATE TABLE public.metric (
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    metric character varying(200) NOT NULL,
    "position" integer NOT NULL,
    value double precision NOT NULL,
    low double precision,
    high double precision
);
CREATE TABLE public.policy (
    alias character varying(64) NOT NULL,
    rules json NOT NULL,
    set_at character varying(32) NOT NULL,
    set_by character varying(200) NOT NULL
);
CREATE TABLE public.pulled (
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    last_at character varying(32) NOT NULL,
    times integer NOT NULL
);
CREATE TABLE public.schema_version (
    number integer NOT NULL
);
CREATE TABLE public.series (
    name character varying(200) NOT NULL,
    folded character varying(200) NOT NULL,
    last integer NOT NULL
);
CREATE TABLE public.signature (
    manifest_digest character varying(64) NOT NULL,
    key_id character varying(64) NOT NULL,
    bundle text NOT NULL,
    signed_at character varying(32) NOT NULL,
    signed_by character varying(200) NOT NULL
);
CREATE TABLE public.store (
    id character varying(64) NOT NULL,
    url character varying(1000) NOT NULL,
    bound_at character varying(32) NOT NULL
);
CREATE TABLE public.subscription (
    id integer NOT NULL,
    way character varying(20) NOT NULL,
    target text NOT NULL,
    secret character varying(300),
    kinds json NOT NULL,
    names character varying(200) NOT NULL,
    after_seq integer NOT NULL,
    added_at character varying(32) NOT NULL,
    added_by character varying(200) NOT NULL
);
CREATE SEQUENCE public.subscription_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.subscription_id_seq OWNED BY public.subscription.id;
CREATE TABLE public.version (
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    engine_key character varying(64) NOT NULL,
    manifest_digest character varying(64),
    model character varying(1000) NOT NULL,
    origin character varying(20) NOT NULL,
    identity character varying(64) NOT NULL,
    verdict character varying(20) NOT NULL,
    recipe json NOT NULL,
    lineage json NOT NULL,
    checks json NOT NULL,
    source json NOT NULL,
    facts_id character varying(64) NOT NULL,
    published_at character varying(32) NOT NULL,
    published_by character varying(200) NOT NULL,
    collected_at character varying(32)
);
CREATE TABLE public.waiver (
    id integer NOT NULL,
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    alias character varying(64) NOT NULL,
    rule character varying(40) NOT NULL,
    reason text NOT NULL,
    granted_at character varying(32) NOT NULL,
    granted_by character varying(200) NOT NULL,
    until character varying(32) NOT NULL
);
CREATE SEQUENCE public.waiver_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.waiver_id_seq OWNED BY public.waiver.id;
ALTER TABLE ONLY public.event ALTER COLUMN seq SET DEFAULT nextval('public.event_seq_seq'::regclass);
ALTER TABLE ONLY public.subscription ALTER COLUMN id SET DEFAULT nextval('public.subscription_id_seq'::regclass);
ALTER TABLE ONLY public.waiver ALTER COLUMN id SET DEFAULT nextval('public.waiver_id_seq'::regclass);
INSERT INTO public.alias VALUES ('demo/fp8', 'candidate', 3, '2026-11-30T07:08:03.956178+00:00', 'ana@build1');
INSERT INTO public.alias VALUES ('demo/fp8', 'prod', 1, '2026-11-30T07:08:04.013926+00:00', 'ana@build1');
INSERT INTO public.attestation VALUES ('0000000000000000000000000000000000000000000000000000000000000001', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '{}', '2026-11-20T12:00:00+00:00', 'ana@ops');
INSERT INTO public.event VALUES (1, '2026-11-30T07:08:03.856190+00:00', 'demo/fp8', 'published', 'ana@build1', '{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000001", "verdict": "PASS"}');
INSERT INTO public.event VALUES (2, '2026-11-30T07:08:03.880699+00:00', 'demo/fp8', 'alias_moved', 'ana@build1', '{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO public.event VALUES (3, '2026-11-30T07:08:03.912273+00:00', 'demo/fp8', 'published', 'ana@build1', '{"number": 2, "engine_key": "0000000000000000000000000000000000000000000000000000000000000002", "verdict": "PASS"}');
INSERT INTO public.event VALUES (4, '2026-11-30T07:08:03.926491+00:00', 'demo/fp8', 'alias_moved', 'ana@build1', '{"alias": "candidate", "was": 1, "now": 2}');
INSERT INTO public.event VALUES (5, '2026-11-30T07:08:03.951036+00:00', 'demo/fp8', 'published', 'ana@build1', '{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003", "verdict": "PASS"}');
INSERT INTO public.event VALUES (6, '2026-11-30T07:08:03.957054+00:00', 'demo/fp8', 'alias_moved', 'ana@build1', '{"alias": "candidate", "was": 2, "now": 3}');
INSERT INTO public.event VALUES (7, '2026-11-30T07:08:03.972241+00:00', 'demo/fp8', 'alias_moved', 'ana@build1', '{"alias": "prod", "was": null, "now": 1}');
INSERT INTO public.event VALUES (8, '2026-11-30T07:08:03.989327+00:00', 'demo/fp8', 'alias_moved', 'ana@build1', '{"alias": "prod", "was": 1, "now": 2}');
INSERT INTO public.event VALUES (9, '2026-11-30T07:08:04.022312+00:00', 'demo/fp8', 'rolled_back', 'ana@build1', '{"alias": "prod", "was": 2, "now": 1}');
INSERT INTO public.event VALUES (10, '2026-11-30T07:08:04.056534+00:00', 'theirs', 'published', 'ana@build1', '{"number": 1, "engine_key": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "verdict": "UNVERIFIED"}');
INSERT INTO public.event VALUES (11, '2026-11-30T07:08:04.073379+00:00', '', 'policy_set', 'ana@build1', '{"alias": "prod", "rules": {"verdict": ["PASS"], "max_age_days": 30.0, "metrics": {"kl": {"max": 0.05}}}}');
INSERT INTO public.event VALUES (12, '2026-11-30T07:08:04.097759+00:00', 'demo/fp8', 'waived', 'ana@build1', '{"id": 1, "name": "demo/fp8", "number": 2, "alias": "prod", "rule": "metrics", "reason": "agreed, na\u00efve", "granted_at": "2026-11-30T07:08:04.094381+00:00", "granted_by": "ana@build1", "until": "2099-01-01T00:00:00+00:00", "waiver": 1}');
INSERT INTO public.event VALUES (13, '2026-11-30T07:08:04.125568+00:00', 'demo/fp8', 'waived', 'ana@build1', '{"id": 2, "name": "demo/fp8", "number": 3, "alias": "prod", "rule": "metrics", "reason": "over", "granted_at": "2026-11-30T07:08:04.119407+00:00", "granted_by": "ana@build1", "until": "2099-01-01T00:00:00+00:00", "waiver": 2}');
INSERT INTO public.event VALUES (14, '2026-11-30T07:08:04.152176+00:00', 'demo/fp8', 'waived', 'ana@build1', '{"id": 2, "name": "demo/fp8", "number": 3, "alias": "prod", "rule": "metrics", "reason": "over", "granted_at": "2026-11-30T07:08:04.119407+00:00", "granted_by": "ana@build1", "until": "2026-11-30T07:08:04.144508+00:00", "waiver": 2, "ended": true}');
INSERT INTO public.event VALUES (15, '2026-11-30T07:08:04.170407+00:00', 'demo/fp8', 'signed', 'ana@build1', '{"number": 1, "kind": "signature", "key_id": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO public.event VALUES (16, '2026-11-30T07:08:04.193911+00:00', 'demo/fp8', 'signed', 'ana@build1', '{"number": 1, "kind": "provenance", "key_id": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO public.event VALUES (17, '2026-11-30T07:08:04.256475+00:00', 'demo/fp8', 'collected', 'ana@build1', '{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003"}');
INSERT INTO public.event VALUES (18, '2026-11-30T07:08:04.283700+00:00', 'demo/fp8', 'rebuild_needed', 'ana@build1', '{"number": 2, "reasons": ["its gate is old"]}');
INSERT INTO public.facts VALUES ('1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141', '{"format": "fp8", "tp": 2, "note": "na\u00efve \ud83d\ude80 ''quoted''", "weight_bytes_per_rank": [10, 11]}');
INSERT INTO public.facts VALUES ('a1331723710558e9c0151b134197f4ac63d1cc90c1388848621b80f9c4098c58', '{"backend": "checkpoint"}');
INSERT INTO public.metric VALUES ('demo/fp8', 1, 'tokens_per_s', 0, 813.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 1, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/fp8', 1, 'size_bytes', 2, 17179869184, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 1, 'tiny', 3, 1e-22, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'tokens_per_s', 0, 813.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'size_bytes', 2, 17179869184, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 2, 'tiny', 3, 1e-22, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'tokens_per_s', 0, 813.5, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'kl', 1, 0.01, 0.008, 0.012);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'size_bytes', 2, 17179869184, NULL, NULL);
INSERT INTO public.metric VALUES ('demo/fp8', 3, 'tiny', 3, 1e-22, NULL, NULL);
INSERT INTO public.policy VALUES ('prod', '{"verdict": ["PASS"], "max_age_days": 30.0, "metrics": {"kl": {"max": 0.05}}}', '2026-11-30T07:08:04.071923+00:00', 'ana@build1');
INSERT INTO public.pulled VALUES ('demo/fp8', 1, '2026-11-30T07:08:04.210814+00:00', 1);
INSERT INTO public.schema_version VALUES (2);
INSERT INTO public.series VALUES ('theirs', 'theirs', 1);
INSERT INTO public.series VALUES ('demo/fp8', 'demo/fp8', 3);
INSERT INTO public.signature VALUES ('0000000000000000000000000000000000000000000000000000000000000065', 'dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd', '{"payload": "x"}', '2026-11-20T12:00:00+00:00', 'ana@ops');
INSERT INTO public.store VALUES ('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', '/srv/store', '2026-11-30T07:08:03.837661+00:00');
INSERT INTO public.subscription VALUES (1, 'command', 'true', NULL, '[]', '*', 18, '2026-11-30T07:08:04.301594+00:00', 'ana@build1');
INSERT INTO public.version VALUES ('demo/fp8', 1, '0000000000000000000000000000000000000000000000000000000000000001', '0000000000000000000000000000000000000000000000000000000000000065', 'meta-llama/Llama-3.1-8B', 'built', '2636ce152230df0b197e05cbaa8f8f80885f429aa184d22b454fa3c3c638dd22', 'PASS', '{"version": 1, "name": "demo/fp8", "n": 1, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}', '{"engine": "0000000000000000000000000000000000000000000000000000000000000001", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}', '1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141', '2026-11-30T07:08:03.844637+00:00', 'ana@build1', NULL);
INSERT INTO public.version VALUES ('demo/fp8', 2, '0000000000000000000000000000000000000000000000000000000000000002', '0000000000000000000000000000000000000000000000000000000000000066', 'meta-llama/Llama-3.1-8B', 'built', '9ca72187333d9e6efe31236a2d20ae5531d3112ea92529adbb1a52d2acb5e906', 'PASS', '{"version": 1, "name": "demo/fp8", "n": 2, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}', '{"engine": "0000000000000000000000000000000000000000000000000000000000000002", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}', '1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141', '2026-11-30T07:08:03.907236+00:00', 'ana@build1', NULL);
INSERT INTO public.version VALUES ('theirs', 1, 'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc', NULL, '', 'imported', '86261b4ab2cdecced65937c16327beb6e3fc27c10c13762eb550e5478b30c0f3', 'UNVERIFIED', '{"name": "theirs", "format": "none"}', '{}', '[]', '{}', 'a1331723710558e9c0151b134197f4ac63d1cc90c1388848621b80f9c4098c58', '2026-11-30T07:08:04.049403+00:00', 'ana@build1', NULL);
INSERT INTO public.version VALUES ('demo/fp8', 3, '0000000000000000000000000000000000000000000000000000000000000003', '0000000000000000000000000000000000000000000000000000000000000067', 'meta-llama/Llama-3.1-8B', 'built', 'e6ad4bc87f89a720e36eaa1091bdde03326c714706dff1fd101c4ff7d46f1010', 'PASS', '{"version": 1, "name": "demo/fp8", "n": 3, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}', '{"engine": "0000000000000000000000000000000000000000000000000000000000000003", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}', '[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]', '{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}', '1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141', '2026-11-30T07:08:03.949129+00:00', 'ana@build1', '2026-11-30T07:08:04.247066+00:00');
INSERT INTO public.waiver VALUES (1, 'demo/fp8', 2, 'prod', 'metrics', 'agreed, naïve', '2026-11-30T07:08:04.094381+00:00', 'ana@build1', '2099-01-01T00:00:00+00:00');
INSERT INTO public.waiver VALUES (2, 'demo/fp8', 3, 'prod', 'metrics', 'over', '2026-11-30T07:08:04.119407+00:00', 'ana@build1', '2026-11-30T07:08:04.144508+00:00');
SELECT pg_catalog.setval('public.event_seq_seq', 18, true);
SELECT pg_catalog.setval('public.subscription_id_seq', 1, true);
SELECT pg_catalog.setval('public.waiver_id_seq', 2, true);
ALTER TABLE ONLY public.alias
    ADD CONSTRAINT alias_pkey PRIMARY KEY (name, alias);
ALTER TABLE ONLY public.attestation
    ADD CONSTRAINT attestation_pkey PRIMARY KEY (engine_key, key_id);
ALTER TABLE ONLY public.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (subscription, seq);
ALTER TABLE ONLY public.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY public.facts
    ADD CONSTRAINT facts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_pkey PRIMARY KEY (name, number, metric);
ALTER TABLE ONLY public.policy
    ADD CONSTRAINT policy_pkey PRIMARY KEY (alias);
ALTER TABLE ONLY public.pulled
    ADD CONSTRAINT pulled_pkey PRIMARY KEY (name, number);
ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_folded_key UNIQUE (folded);
ALTER TABLE ONLY public.series
    ADD CONSTRAINT series_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.signature
    ADD CONSTRAINT signature_pkey PRIMARY KEY (manifest_digest, key_id);
ALTER TABLE ONLY public.store
    ADD CONSTRAINT store_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.subscription
    ADD CONSTRAINT subscription_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_name_identity_key UNIQUE (name, identity);
ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_pkey PRIMARY KEY (name, number);
ALTER TABLE ONLY public.waiver
    ADD CONSTRAINT waiver_pkey PRIMARY KEY (id);
CREATE INDEX ix_event_name ON public.event USING btree (name);
CREATE INDEX ix_metric_metric ON public.metric USING btree (metric);
CREATE INDEX ix_version_engine_key ON public.version USING btree (engine_key);
CREATE INDEX ix_version_facts_id ON public.version USING btree (facts_id);
CREATE INDEX ix_version_model ON public.version USING btree (model);
CREATE INDEX ix_waiver_version ON public.waiver USING btree (name, number);
CREATE TRIGGER event_only_grows BEFORE DELETE OR UPDATE OR TRUNCATE ON public.event FOR EACH STATEMENT EXECUTE FUNCTION public.event_only_grows();
ALTER TABLE ONLY public.alias
    ADD CONSTRAINT alias_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);
ALTER TABLE ONLY public.delivery
    ADD CONSTRAINT delivery_subscription_fkey FOREIGN KEY (subscription) REFERENCES public.subscription(id);
ALTER TABLE ONLY public.metric
    ADD CONSTRAINT metric_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);
ALTER TABLE ONLY public.pulled
    ADD CONSTRAINT pulled_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);
ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_facts_id_fkey FOREIGN KEY (facts_id) REFERENCES public.facts(id);
ALTER TABLE ONLY public.version
    ADD CONSTRAINT version_name_fkey FOREIGN KEY (name) REFERENCES public.series(name);
ALTER TABLE ONLY public.waiver
    ADD CONSTRAINT waiver_name_number_fkey FOREIGN KEY (name, number) REFERENCES public.version(name, number);
