BEGIN TRANSACTION;
CREATE TABLE alias (
	name VARCHAR(200) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	PRIMARY KEY (name, alias), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
INSERT INTO "alias" VALUES('demo/fp8','candidate',3);
INSERT INTO "alias" VALUES('demo/fp8','prod',2);
INSERT INTO "alias" VALUES('demo/int4','candidate',1);
CREATE TABLE event (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at VARCHAR(32) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	detail JSON NOT NULL
);
INSERT INTO "event" VALUES(1,'2026-11-21T11:45:01.234266+00:00','demo/fp8','published','{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000001", "verdict": "PASS"}');
INSERT INTO "event" VALUES(2,'2026-11-21T11:45:01.235337+00:00','demo/fp8','alias_moved','{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO "event" VALUES(3,'2026-11-21T11:45:01.237785+00:00','demo/fp8','published','{"number": 2, "engine_key": "0000000000000000000000000000000000000000000000000000000000000002", "verdict": "PASS"}');
INSERT INTO "event" VALUES(4,'2026-11-21T11:45:01.238439+00:00','demo/fp8','alias_moved','{"alias": "candidate", "was": 1, "now": 2}');
INSERT INTO "event" VALUES(5,'2026-11-21T11:45:01.240597+00:00','demo/fp8','published','{"number": 3, "engine_key": "0000000000000000000000000000000000000000000000000000000000000003", "verdict": "PASS"}');
INSERT INTO "event" VALUES(6,'2026-11-21T11:45:01.240982+00:00','demo/fp8','alias_moved','{"alias": "candidate", "was": 2, "now": 3}');
INSERT INTO "event" VALUES(7,'2026-11-21T11:45:01.244766+00:00','demo/fp8','alias_moved','{"alias": "prod", "was": null, "now": 1}');
INSERT INTO "event" VALUES(8,'2026-11-21T11:45:01.247562+00:00','demo/fp8','alias_moved','{"alias": "prod", "was": 1, "now": 2}');
INSERT INTO "event" VALUES(9,'2026-11-21T11:45:01.250102+00:00','Demo/FP8','published','{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000004", "verdict": "PASS"}');
INSERT INTO "event" VALUES(10,'2026-11-21T11:45:01.252238+00:00','demo/int4','published','{"number": 1, "engine_key": "0000000000000000000000000000000000000000000000000000000000000005", "verdict": "PASS"}');
INSERT INTO "event" VALUES(11,'2026-11-21T11:45:01.252572+00:00','demo/int4','alias_moved','{"alias": "candidate", "was": null, "now": 1}');
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
INSERT INTO "metric" VALUES('demo/fp8',2,'tokens_per_s',0,814.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',2,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('demo/fp8',3,'tokens_per_s',0,815.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/fp8',3,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('Demo/FP8',1,'tokens_per_s',0,816.5,NULL,NULL);
INSERT INTO "metric" VALUES('Demo/FP8',1,'kl',1,0.01,0.008,0.012);
INSERT INTO "metric" VALUES('demo/int4',1,'tokens_per_s',0,817.5,NULL,NULL);
INSERT INTO "metric" VALUES('demo/int4',1,'kl',1,0.01,0.008,0.012);
CREATE TABLE schema_version (
	number INTEGER NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE series (
	name VARCHAR(200) NOT NULL, 
	last INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "series" VALUES('demo/fp8',3);
INSERT INTO "series" VALUES('Demo/FP8',1);
INSERT INTO "series" VALUES('demo/int4',1);
CREATE TABLE version (
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	engine_key VARCHAR(64) NOT NULL, 
	identity VARCHAR(64) NOT NULL, 
	verdict VARCHAR(20) NOT NULL, 
	recipe JSON NOT NULL, 
	lineage JSON NOT NULL, 
	checks JSON NOT NULL, 
	facts JSON NOT NULL, 
	published_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (name, number), 
	UNIQUE (name, identity), 
	FOREIGN KEY(name) REFERENCES series (name)
);
INSERT INTO "version" VALUES('demo/fp8',1,'0000000000000000000000000000000000000000000000000000000000000001','6c019c1df38ba8455c36b2949a232a2a6365ee8914b56f9f2ae3c6621d0d297b','PASS','{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 1}','{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000001"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}','2026-11-21T11:45:01.233515+00:00');
INSERT INTO "version" VALUES('demo/fp8',2,'0000000000000000000000000000000000000000000000000000000000000002','f3e8ab9e3bb564a67b5860b76a5c8319581b4a61c013b050fb14991f3728075e','PASS','{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 2}','{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000002"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}','2026-11-21T11:45:01.237584+00:00');
INSERT INTO "version" VALUES('demo/fp8',3,'0000000000000000000000000000000000000000000000000000000000000003','01bfb7d49786ddeae30bc0138b5077d2e8c92bdfd9420335ea5c0132eaf47877','PASS','{"version": 1, "name": "demo/fp8", "model": {"repo": "meta-llama/Llama-3.1-8B", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"}, "n": 3}','{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000003"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}','2026-11-21T11:45:01.240404+00:00');
INSERT INTO "version" VALUES('Demo/FP8',1,'0000000000000000000000000000000000000000000000000000000000000004','f7646fb255103d80b20e8a56a979f827071211ce8ee9e04271c45120ee7d1976','PASS','{"version": 1, "name": "Demo/FP8", "model": {"path": "checkpoints/tiny"}, "n": 4}','{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000004"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "tp": 2, "pp": 1, "world_size": 2, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11]}','2026-11-21T11:45:01.249747+00:00');
INSERT INTO "version" VALUES('demo/int4',1,'0000000000000000000000000000000000000000000000000000000000000005','32e7f080273163e3d8e5f9cce76cee186ae06b0aa3d07715dec21cd88bce022a','PASS','{"version": 1, "name": "demo/int4", "model": {"path": "checkpoints/tiny"}, "n": 5}','{"source": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "engine": "0000000000000000000000000000000000000000000000000000000000000005"}','[{"metric": "kl", "limit": 0.02, "outcome": "PASS"}]','{"backend": "aoti", "format": "int4_awq", "dtype": "bfloat16", "tp": 1, "pp": 1, "world_size": 1, "max_batch_size": 8, "max_seq_len": 512, "target": "host", "device": "cpu", "toolchain": {"torch": "2.13.0"}, "cpu": "avx2", "gpus": [], "weight_bytes_per_rank": [10, 11], "note": "na\u00efve \ud83d\ude80 ''quoted''"}','2026-11-21T11:45:01.252046+00:00');
CREATE INDEX ix_event_name ON event (name);
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE INDEX ix_version_engine_key ON version (engine_key);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',11);
COMMIT;
