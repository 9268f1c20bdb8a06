BEGIN TRANSACTION;
CREATE TABLE alias (
	name VARCHAR(200) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	moved_at VARCHAR(32) NOT NULL, 
	moved_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (name, alias), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
INSERT INTO "alias" VALUES('demo/fp8','candidate',3,'2026-11-30T07:08:01.869949+00:00','ana@build1');
INSERT INTO "alias" VALUES('demo/fp8','prod',1,'2026-11-30T07:08:01.914836+00:00','ana@build1');
CREATE TABLE attestation (
	engine_key VARCHAR(64) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	bundle TEXT NOT NULL, 
	signed_at VARCHAR(32) NOT NULL, 
	signed_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (engine_key, key_id)
);
INSERT INTO "attestation" VALUES('0000000000000000000000000000000000000000000000000000000000000001','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{}','2026-11-20T12:00:00+00:00','ana@ops');
CREATE TABLE delivery (
	subscription INTEGER NOT NULL, 
	seq INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_at VARCHAR(32), 
	done_at VARCHAR(32), 
	problem TEXT, 
	PRIMARY KEY (subscription, seq), 
	FOREIGN KEY(subscription) REFERENCES subscription (id)
);
CREATE TABLE event (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at VARCHAR(32) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	"by" VARCHAR(200) NOT NULL, 
	detail JSON NOT NULL
);
INSERT INTO "event" VALUES(1,'2026-11-30T07:08:01.826928+00:00','demo/fp8','published','ana@build1','{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000001", "verdict": "PASS"}');
INSERT INTO "event" VALUES(2,'2026-11-30T07:08:01.838223+00:00','demo/fp8','alias_moved','ana@build1','{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO "event" VALUES(3,'2026-11-30T07:08:01.851930+00:00','demo/fp8','published','ana@build1','{"number": 2, "engine_key": "0000000000000000000000000000000000000000000000000000000000000002", "verdict": "PASS"}');
INSERT INTO "event" VALUES(4,'2026-11-30T07:08:01.855399+00:00','demo/fp8','alias_moved','ana@build1','{"alias": "candidate", "was": 1, "now": 2}');
INSERT INTO "event" VALUES(5,'2026-11-30T07:08:01.868713+00:00','demo/fp8','published','ana@build1','{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003", "verdict": "PASS"}');
INSERT INTO "event" VALUES(6,'2026-11-30T07:08:01.870132+00:00','demo/fp8','alias_moved','ana@build1','{"alias": "candidate", "was": 2, "now": 3}');
INSERT INTO "event" VALUES(7,'2026-11-30T07:08:01.888935+00:00','demo/fp8','alias_moved','ana@build1','{"alias": "prod", "was": null, "now": 1}');
INSERT INTO "event" VALUES(8,'2026-11-30T07:08:01.902550+00:00','demo/fp8','alias_moved','ana@build1','{"alias": "prod", "was": 1, "now": 2}');
INSERT INTO "event" VALUES(9,'2026-11-30T07:08:01.920421+00:00','demo/fp8','rolled_back','ana@build1','{"alias": "prod", "was": 2, "now": 1}');
INSERT INTO "event" VALUES(10,'2026-11-30T07:08:01.941152+00:00','theirs','published','ana@build1','{"number": 1, "engine_key": "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc", "verdict": "UNVERIFIED"}');
INSERT INTO "event" VALUES(11,'2026-11-30T07:08:01.952832+00:00','','policy_set','ana@build1','{"alias": "prod", "rules": {"verdict": ["PASS"], "max_age_days": 30.0, "metrics": {"kl": {"max": 0.05}}}}');
INSERT INTO "event" VALUES(12,'2026-11-30T07:08:01.963314+00:00','demo/fp8','waived','ana@build1','{"id": 1, "name": "demo/fp8", "number": 2, "alias": "prod", "rule": "metrics", "reason": "agreed, na\u00efve", "granted_at": "2026-11-30T07:08:01.962082+00:00", "granted_by": "ana@build1", "until": "2099-01-01T00:00:00+00:00", "waiver": 1}');
INSERT INTO "event" VALUES(13,'2026-11-30T07:08:01.972642+00:00','demo/fp8','waived','ana@build1','{"id": 2, "name": "demo/fp8", "number": 3, "alias": "prod", "rule": "metrics", "reason": "over", "granted_at": "2026-11-30T07:08:01.972007+00:00", "granted_by": "ana@build1", "until": "2099-01-01T00:00:00+00:00", "waiver": 2}');
INSERT INTO "event" VALUES(14,'2026-11-30T07:08:01.980914+00:00','demo/fp8','waived','ana@build1','{"id": 2, "name": "demo/fp8", "number": 3, "alias": "prod", "rule": "metrics", "reason": "over", "granted_at": "2026-11-30T07:08:01.972007+00:00", "granted_by": "ana@build1", "until": "2026-11-30T07:08:01.979766+00:00", "waiver": 2, "ended": true}');
INSERT INTO "event" VALUES(15,'2026-11-30T07:08:01.994978+00:00','demo/fp8','signed','ana@build1','{"number": 1, "kind": "signature", "key_id": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO "event" VALUES(16,'2026-11-30T07:08:02.017843+00:00','demo/fp8','signed','ana@build1','{"number": 1, "kind": "provenance", "key_id": "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"}');
INSERT INTO "event" VALUES(17,'2026-11-30T07:08:02.034824+00:00','demo/fp8','collected','ana@build1','{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003"}');
INSERT INTO "event" VALUES(18,'2026-11-30T07:08:02.052712+00:00','demo/fp8','rebuild_needed','ana@build1','{"number": 2, "reasons": ["its gate is old"]}');
CREATE TABLE facts (
	id VARCHAR(64) NOT NULL, 
	facts JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "facts" VALUES('1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141','{"format": "fp8", "tp": 2, "note": "na\u00efve \ud83d\ude80 ''quoted''", "weight_bytes_per_rank": [10, 11]}');
INSERT INTO "facts" VALUES('a1331723710558e9c0151b134197f4ac63d1cc90c1388848621b80f9c4098c58','{"backend": "checkpoint"}');
CREATE TABLE metric (
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	metric VARCHAR(200) NOT NULL, 
	position INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	low FLOAT, 
	high FLOAT, 
	PRIMARY KEY (name, number, metric), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
INSERT INTO "metric" VALUES('demo/fp8',1,'tokens_per_s',0,813.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',1,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('demo/fp8',1,'size_bytes',2,17179869184.0,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',1,'tiny',3,1.0e-22,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',2,'tokens_per_s',0,813.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',2,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('demo/fp8',2,'size_bytes',2,17179869184.0,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',2,'tiny',3,1.0e-22,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',3,'tokens_per_s',0,813.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',3,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('demo/fp8',3,'size_bytes',2,17179869184.0,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',3,'tiny',3,1.0e-22,NULL,NULL);
CREATE TABLE policy (
	alias VARCHAR(64) NOT NULL, 
	rules JSON NOT NULL, 
	set_at VARCHAR(32) NOT NULL, 
	set_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (alias)
);
INSERT INTO "policy" VALUES('prod','{"verdict": ["PASS"], "max_age_days": 30.0, "metrics": {"kl": {"max": 0.05}}}','2026-11-30T07:08:01.952280+00:00','ana@build1');
CREATE TABLE pulled (
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	last_at VARCHAR(32) NOT NULL, 
	times INTEGER NOT NULL, 
	PRIMARY KEY (name, number), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
INSERT INTO "pulled" VALUES('demo/fp8',1,'2026-11-30T07:08:02.022198+00:00',1);
CREATE TABLE schema_version (
	number INTEGER NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "schema_version" VALUES(2);
CREATE TABLE series (
	name VARCHAR(200) NOT NULL, 
	folded VARCHAR(200) NOT NULL, 
	last INTEGER NOT NULL, 
	PRIMARY KEY (name), 
	CONSTRAINT series_folded_key UNIQUE (folded)
);
INSERT INTO "series" VALUES('demo/fp8','demo/fp8',3);
INSERT INTO "series" VALUES('theirs','theirs',1);
CREATE TABLE signature (
	manifest_digest VARCHAR(64) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	bundle TEXT NOT NULL, 
	signed_at VARCHAR(32) NOT NULL, 
	signed_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (manifest_digest, key_id)
);
INSERT INTO "signature" VALUES('0000000000000000000000000000000000000000000000000000000000000065','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{"payload": "x"}','2026-11-20T12:00:00+00:00','ana@ops');
CREATE TABLE store (
	id VARCHAR(64) NOT NULL, 
	url VARCHAR(1000) NOT NULL, 
	bound_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "store" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','/srv/store','2026-11-30T07:08:01.815154+00:00');
CREATE TABLE subscription (
	id INTEGER NOT NULL, 
	way VARCHAR(20) NOT NULL, 
	target TEXT NOT NULL, 
	secret VARCHAR(300), 
	kinds JSON NOT NULL, 
	names VARCHAR(200) NOT NULL, 
	after_seq INTEGER NOT NULL, 
	added_at VARCHAR(32) NOT NULL, 
	added_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "subscription" VALUES(1,'command','true',NULL,'[]','*',18,'2026-11-30T07:08:02.065328+00:00','ana@build1');
CREATE TABLE version (
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	engine_key VARCHAR(64) NOT NULL, 
	manifest_digest VARCHAR(64), 
	model VARCHAR(1000) NOT NULL, 
	origin VARCHAR(20) NOT NULL, 
	identity VARCHAR(64) NOT NULL, 
	verdict VARCHAR(20) NOT NULL, 
	recipe JSON NOT NULL, 
	lineage JSON NOT NULL, 
	checks JSON NOT NULL, 
	source JSON NOT NULL, 
	facts_id VARCHAR(64) NOT NULL, 
	published_at VARCHAR(32) NOT NULL, 
	published_by VARCHAR(200) NOT NULL, 
	collected_at VARCHAR(32), 
	PRIMARY KEY (name, number), 
	UNIQUE (name, identity), 
	FOREIGN KEY(name) REFERENCES series (name), 
	CONSTRAINT version_facts_id_fkey FOREIGN KEY(facts_id) REFERENCES facts (id)
);
INSERT INTO "version" VALUES('demo/fp8',1,'0000000000000000000000000000000000000000000000000000000000000001','0000000000000000000000000000000000000000000000000000000000000065','meta-llama/Llama-3.1-8B','built','2636ce152230df0b197e05cbaa8f8f80885f429aa184d22b454fa3c3c638dd22','PASS','{"version": 1, "name": "demo/fp8", "n": 1, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}','{"engine": "0000000000000000000000000000000000000000000000000000000000000001", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}','1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141','2026-11-30T07:08:01.825773+00:00','ana@build1',NULL);
INSERT INTO "version" VALUES('demo/fp8',2,'0000000000000000000000000000000000000000000000000000000000000002','0000000000000000000000000000000000000000000000000000000000000066','meta-llama/Llama-3.1-8B','built','9ca72187333d9e6efe31236a2d20ae5531d3112ea92529adbb1a52d2acb5e906','PASS','{"version": 1, "name": "demo/fp8", "n": 2, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}','{"engine": "0000000000000000000000000000000000000000000000000000000000000002", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}','1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141','2026-11-30T07:08:01.849325+00:00','ana@build1',NULL);
INSERT INTO "version" VALUES('demo/fp8',3,'0000000000000000000000000000000000000000000000000000000000000003','0000000000000000000000000000000000000000000000000000000000000067','meta-llama/Llama-3.1-8B','built','e6ad4bc87f89a720e36eaa1091bdde03326c714706dff1fd101c4ff7d46f1010','PASS','{"version": 1, "name": "demo/fp8", "n": 3, "format": "fp8", "gate": {"limits": {"kl": 0.02}}}','{"engine": "0000000000000000000000000000000000000000000000000000000000000003", "source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}','1e7eacdf7f1f8c9f515746801938b0c814f8357abf0c5bd3fcde0da13c78f141','2026-11-30T07:08:01.868453+00:00','ana@build1','2026-11-30T07:08:02.034164+00:00');
INSERT INTO "version" VALUES('theirs',1,'cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc',NULL,'','imported','86261b4ab2cdecced65937c16327beb6e3fc27c10c13762eb550e5478b30c0f3','UNVERIFIED','{"name": "theirs", "format": "none"}','{}','[]','{}','a1331723710558e9c0151b134197f4ac63d1cc90c1388848621b80f9c4098c58','2026-11-30T07:08:01.940961+00:00','ana@build1',NULL);
CREATE TABLE waiver (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	rule VARCHAR(40) NOT NULL, 
	reason TEXT NOT NULL, 
	granted_at VARCHAR(32) NOT NULL, 
	granted_by VARCHAR(200) NOT NULL, 
	until VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
INSERT INTO "waiver" VALUES(1,'demo/fp8',2,'prod','metrics','agreed, naïve','2026-11-30T07:08:01.962082+00:00','ana@build1','2099-01-01T00:00:00+00:00');
INSERT INTO "waiver" VALUES(2,'demo/fp8',3,'prod','metrics','over','2026-11-30T07:08:01.972007+00:00','ana@build1','2026-11-30T07:08:01.979766+00:00');
CREATE INDEX ix_event_name ON event (name);
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE INDEX ix_version_engine_key ON version (engine_key);
CREATE INDEX ix_version_facts_id ON version (facts_id);
CREATE INDEX ix_version_model ON version (model);
CREATE INDEX ix_metric_metric ON metric (metric);
CREATE INDEX ix_waiver_version ON waiver (name, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',18);
COMMIT;
