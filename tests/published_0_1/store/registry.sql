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
INSERT INTO "alias" VALUES('published/int8','candidate',1,'2026-11-30T03:45:57.017333+00:00','team@builds');
INSERT INTO "alias" VALUES('published/fp8_tuned','candidate',1,'2026-11-30T03:47:37.672610+00:00','team@builds');
INSERT INTO "alias" VALUES('published/int8_wo','candidate',1,'2026-11-30T03:55:49.405786+00:00','team@builds');
CREATE TABLE attestation (
	engine_key VARCHAR(64) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	bundle TEXT NOT NULL, 
	signed_at VARCHAR(32) NOT NULL, 
	signed_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (engine_key, key_id)
);
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
INSERT INTO "event" VALUES(1,'2026-11-30T03:45:57.012432+00:00','published/int8','published','team@builds','{"number": 1, "engine_key": "c9d0cdd80e9e9c374c4eaab088cfd532f47bcf7b45120041e84765030e3f9c95", "verdict": "PASS"}');
INSERT INTO "event" VALUES(2,'2026-11-30T03:45:57.018445+00:00','published/int8','alias_moved','team@builds','{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO "event" VALUES(3,'2026-11-30T03:47:37.667962+00:00','published/fp8_tuned','published','team@builds','{"number": 1, "engine_key": "81eea27e37433414bdaa16885e5967af0ddc5d071a8848fe22188cb3f38b1499", "verdict": "PASS"}');
INSERT INTO "event" VALUES(4,'2026-11-30T03:47:37.673862+00:00','published/fp8_tuned','alias_moved','team@builds','{"alias": "candidate", "was": null, "now": 1}');
INSERT INTO "event" VALUES(5,'2026-11-30T03:55:49.401770+00:00','published/int8_wo','published','team@builds','{"number": 1, "engine_key": "69f98f5c1e890e3ad8ce1e34baca6ec6fab3da04ffe7273fa0c603203c63186b", "verdict": "PASS"}');
INSERT INTO "event" VALUES(6,'2026-11-30T03:55:49.406852+00:00','published/int8_wo','alias_moved','team@builds','{"alias": "candidate", "was": null, "now": 1}');
CREATE TABLE facts (
	id VARCHAR(64) NOT NULL, 
	facts JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "facts" VALUES('047e29cd6dda7c2bff43e54a5a9d847449ff29e8b71b208ee6965cbb3b1a08d5','{"backend": "aoti", "format": "int8_sq", "dtype": "bfloat16", "kv_cache": "bfloat16", "tp": 1, "pp": 1, "world_size": 1, "max_batch_size": 2, "max_seq_len": 128, "device": "cpu", "toolchain": {"torch": "2.13.0+cpu", "c++": "g++ 12.2.0", "cpu": "avx512_bf16", "cores": 2}, "cpu": "avx512_bf16", "sm": null, "weight_bytes_per_rank": [476712], "memory_bytes_per_rank": [603432], "target": "host", "gpus": []}');
INSERT INTO "facts" VALUES('7c07939648e58f77fc4cdd69f8f56bc7ee39670c683ab1db2954ef9a2f0715d8','{"backend": "aoti", "format": "fp8", "dtype": "bfloat16", "kv_cache": "bfloat16", "tp": 1, "pp": 1, "world_size": 1, "max_batch_size": 1, "max_seq_len": 128, "device": "cpu", "toolchain": {"torch": "2.13.0+cpu", "c++": "g++ 12.2.0", "cpu": "avx512_bf16", "cores": 2}, "cpu": "avx512_bf16", "sm": null, "weight_bytes_per_rank": [464336], "memory_bytes_per_rank": [526160], "target": "host", "gpus": []}');
INSERT INTO "facts" VALUES('03217244cba2acf74e33136c0056376bf8806aacc5f40ea5a202f3820a4a28d7','{"backend": "aoti", "format": "int8_wo", "dtype": "bfloat16", "kv_cache": "bfloat16", "tp": 1, "pp": 1, "world_size": 1, "max_batch_size": 2, "max_seq_len": 128, "device": "cpu", "toolchain": {"torch": "2.13.0+cpu", "c++": "g++ 12.2.0", "cpu": "avx512_bf16", "cores": 2}, "cpu": "avx512_bf16", "sm": null, "weight_bytes_per_rank": [471232], "memory_bytes_per_rank": [600320], "target": "host", "gpus": []}');
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
INSERT INTO "metric" VALUES('published/int8',1,'kl',0,0.00545760787586344,4.82064787009931720179e-03,6.0792470375958780962e-03);
INSERT INTO "metric" VALUES('published/int8',1,'top1_agreement',1,7.98280423280423256926e-01,7.65601523060488342586e-01,0.830026455026455);
INSERT INTO "metric" VALUES('published/int8',1,'perplexity_ratio',2,1.00041063982119604602e+00,9.91869185085994753414e-01,1.00995487521745874737e+00);
INSERT INTO "metric" VALUES('published/int8',1,'baseline_perplexity',3,5.14665017295314100934e+02,4.87694153312353591896e+02,5.43308570141817881449e+02);
INSERT INTO "metric" VALUES('published/int8',1,'engine_perplexity',4,5.14876359245991807242e+02,4.87656965909706514123e+02,5.44269962613310781312e+02);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s',5,3.47169502634036643935e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s_per_user',6,6.41547927142313801577e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p50',7,6.59172999917245761025e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p95',8,7.74410799942870653467e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p50',9,1.5587299992603220744e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p95',10,3.40153380000173166664e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s@1',11,2.66158702782131149433e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s_per_user@1',12,1.12368388428096150168e+04,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p50@1',13,6.40575999909742677118e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p95@1',14,6.83653059995776768431e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p50@1',15,8.89930000766980811022e-02,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p95@1',16,4.8610159997224278161e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s@2',17,3.47169502634036643935e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'tokens_per_s_per_user@2',18,6.41547927142313801577e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p50@2',19,6.59172999917245761025e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'ttft_ms_p95@2',20,7.74410799942870653467e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p50@2',21,1.5587299992603220744e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'itl_ms_p95@2',22,3.40153380000173166664e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8',1,'size_bytes',23,5238537.0,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'kl',0,2.07029811444570839562e-02,1.89935231109139915361e-02,2.24953017895377152535e-02);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'top1_agreement',1,6.1507936507936511461e-01,5.80687830687830697229e-01,6.49470899470899420968e-01);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'perplexity_ratio',2,1.00609295433937639963e+00,9.85457014461762148549e-01,1.02422755731467129969e+00);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'baseline_perplexity',3,5.14665017295314100934e+02,4.87694153312353591896e+02,5.43308570141817881449e+02);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'engine_perplexity',4,5.17800847745768578513e+02,4.88736553402498145708e+02,5.48144483375691834222e+02);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'tokens_per_s',5,1.51451831454462808321e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'tokens_per_s_per_user',6,1.24845503686675274367e+04,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'ttft_ms_p50',7,0.923157999977775,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'ttft_ms_p95',8,8.81689419999247547821e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'itl_ms_p50',9,8.00990000016099656932e-02,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'itl_ms_p95',10,1.37181459997462296129e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'tokens_per_s@1',11,1.51451831454462808321e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'tokens_per_s_per_user@1',12,1.24845503686675274367e+04,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'ttft_ms_p50@1',13,0.923157999977775,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'ttft_ms_p95@1',14,8.81689419999247547821e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'itl_ms_p50@1',15,8.00990000016099656932e-02,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'itl_ms_p95@1',16,1.37181459997462296129e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/fp8_tuned',1,'size_bytes',17,5318652.0,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'kl',0,1.22640792867717519573e-03,1.08252909537659707146e-03,1.37863761554851541914e-03);
INSERT INTO "metric" VALUES('published/int8_wo',1,'top1_agreement',1,8.94841269841269881801e-01,0.878968253968254,9.11375661375661394458e-01);
INSERT INTO "metric" VALUES('published/int8_wo',1,'perplexity_ratio',2,9.99788184690182823999e-01,9.9657591694391955972e-01,1.00333881033540950333e+00);
INSERT INTO "metric" VALUES('published/int8_wo',1,'baseline_perplexity',3,5.14665017295314100934e+02,4.87694153312353591896e+02,5.43308570141817881449e+02);
INSERT INTO "metric" VALUES('published/int8_wo',1,'engine_perplexity',4,5.14556003365223773486e+02,4.88169955120269946765e+02,543.08557879111);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s',5,5.76105379467870079698e+02,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s_per_user',6,2.23494651754283495397e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p50',7,1.0052299999188107904e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p95',8,1.0734526999840454664e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p50',9,4.47438000037436722777e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p95',10,2.09877832000529416242e+01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s@1',11,6.9561210058675087566e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s_per_user@1',12,9.515924894398907782e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p50@1',13,1.13783799997690948657e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p95@1',14,1.2922654000476541114e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p50@1',15,1.05087000065395841374e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p95@1',16,2.02219999891894791632e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s@2',17,5.76105379467870079698e+02,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'tokens_per_s_per_user@2',18,2.23494651754283495397e+03,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p50@2',19,1.0052299999188107904e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'ttft_ms_p95@2',20,1.0734526999840454664e+00,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p50@2',21,4.47438000037436722777e-01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'itl_ms_p95@2',22,2.09877832000529416242e+01,NULL,NULL);
INSERT INTO "metric" VALUES('published/int8_wo',1,'size_bytes',23,5142404.0,NULL,NULL);
CREATE TABLE policy (
	alias VARCHAR(64) NOT NULL, 
	rules JSON NOT NULL, 
	set_at VARCHAR(32) NOT NULL, 
	set_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (alias)
);
CREATE TABLE pulled (
	name VARCHAR(200) NOT NULL, 
	number INTEGER NOT NULL, 
	last_at VARCHAR(32) NOT NULL, 
	times INTEGER NOT NULL, 
	PRIMARY KEY (name, number), 
	FOREIGN KEY(name, number) REFERENCES version (name, number)
);
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
INSERT INTO "series" VALUES('published/int8','published/int8',1);
INSERT INTO "series" VALUES('published/fp8_tuned','published/fp8_tuned',1);
INSERT INTO "series" VALUES('published/int8_wo','published/int8_wo',1);
CREATE TABLE signature (
	manifest_digest VARCHAR(64) NOT NULL, 
	key_id VARCHAR(64) NOT NULL, 
	bundle TEXT NOT NULL, 
	signed_at VARCHAR(32) NOT NULL, 
	signed_by VARCHAR(200) NOT NULL, 
	PRIMARY KEY (manifest_digest, key_id)
);
CREATE TABLE store (
	id VARCHAR(64) NOT NULL, 
	url VARCHAR(1000) NOT NULL, 
	bound_at VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "store" VALUES('db168c658a3a548c4438ea83e5c66e81df89732c6f489f0cee459acace4c1844','/srv/recipes/store','2026-11-30T03:45:56.983644+00:00');
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
INSERT INTO "version" VALUES('published/int8',1,'c9d0cdd80e9e9c374c4eaab088cfd532f47bcf7b45120041e84765030e3f9c95','4e420f783d190b1cbef302ed9266e74b645e50d2ed3b517fe0310cf2f8f015fc','./model','built','492622fdf848d490a36c799684108e589fcfdfb00ed08fed8ac062f1840a3ec8','PASS','{"version": 1, "name": "published/int8", "model": {"path": "./model"}, "format": "int8_sq", "kv_cache": "auto", "calibration": {"data": [{"path": "calib.jsonl", "files": [], "samples": "all", "weight": 1.0, "column": "auto", "render": "auto", "bad_rows": "fail"}], "pack": true, "truncate": "right", "seq_len": 64, "max_sequences": 8, "seed": 0, "method": "one_pass", "statistics": "all", "memory": {}, "smoothing": 1.0}, "engine": {"backend": "aoti", "target": "host", "tp": 1, "pp": 1, "ep": 1, "max_batch_size": 2, "max_seq_len": 128, "options": {}}, "gate": {"data": {"path": "gate.jsonl", "files": [], "samples": "all", "weight": 1.0, "column": "auto", "render": "auto", "bad_rows": "fail"}, "seq_len": 64, "max_sequences": 24, "limits": {"kl": 0.5}}, "publish": {"alias": "candidate"}}','{"source": "adabf37f827b864e6e0542b606639510e88b3b9f0a3f7092dd59e4e43e87ae87", "calibration_set": "d9a2558220e608276c5552c03108be5be186be91b8baa0d89f53e4623b521aaa", "leakage": "5f0acb29febacc1b05c613ec79f5839afdc6362634f39d331bebafc330f15059", "statistics": "5ea214af81a5f363fbc188a4c8e0074e5b99c3b3c4c8af516e20501df033e619", "quantized_checkpoint": "fd96c1a585a89cc2d5338483769ba154191fd51540bce81e620c4f20af3bb292", "sharded_checkpoint": "127019bb33abb8c6f86bcdad5ab685ddf3800e4e9046235bc4300da70d3dcd05", "engine": "c9d0cdd80e9e9c374c4eaab088cfd532f47bcf7b45120041e84765030e3f9c95", "measurement": "610fc624ed4d77aec835663620c543b300cb57ea315572d08194355460b567c8", "baseline": "2c530e399cb7680350e89eb9c2b895767262f92dedb76693163643ee9e3c6269", "evaluation": "97b06f2f65cb33443d36ee9e2e57af0c43b75b80702243f9853282c0d644b1aa"}','[{"metric": "kl", "value": 0.00545760787586344, "low": 0.004820647870099317, "high": 0.006079247037595878, "limit": 0.5, "outcome": "PASS", "why": "", "more_samples": null}]','{"path": "./model", "file": "/srv/recipes/int8.yaml", "licence": {"id": "NOASSERTION", "stated": null, "texts": {}}}','047e29cd6dda7c2bff43e54a5a9d847449ff29e8b71b208ee6965cbb3b1a08d5','2026-11-30T03:45:57.011083+00:00','team@builds',NULL);
INSERT INTO "version" VALUES('published/fp8_tuned',1,'81eea27e37433414bdaa16885e5967af0ddc5d071a8848fe22188cb3f38b1499','93dba4d30d1d2ee051bbb5a54af9a11701ee93678fa620b12aab5cf1fbcea6e1','./model','built','24a2037ea08f90836be7e35c8e2a64d11747640f9c8a66d830e0ad0b4524b95b','PASS','{"version": 1, "name": "published/fp8_tuned", "model": {"path": "./model"}, "format": "fp8", "kv_cache": "auto", "calibration": {"data": [{"path": "calib.jsonl", "files": [], "samples": "all", "weight": 1.0, "column": "auto", "render": "auto", "bad_rows": "fail"}], "pack": true, "truncate": "right", "seq_len": 64, "max_sequences": 8, "seed": 0, "method": "modelopt", "statistics": "all", "memory": {}, "smoothing": 1.0}, "engine": {"backend": "aoti", "target": "host", "tp": 1, "pp": 1, "ep": 1, "max_batch_size": 2, "max_seq_len": 128, "options": {}}, "tune": {"space": {"max_batch_size": [1, 2]}, "objective": "throughput", "slo": {}, "budget": {"trials": 2}}, "gate": {"data": {"path": "gate.jsonl", "files": [], "samples": "all", "weight": 1.0, "column": "auto", "render": "auto", "bad_rows": "fail"}, "seq_len": 64, "max_sequences": 24, "limits": {"kl": 0.5}}, "publish": {"alias": "candidate"}}','{"source": "adabf37f827b864e6e0542b606639510e88b3b9f0a3f7092dd59e4e43e87ae87", "calibration_set": "d9a2558220e608276c5552c03108be5be186be91b8baa0d89f53e4623b521aaa", "leakage": "5f0acb29febacc1b05c613ec79f5839afdc6362634f39d331bebafc330f15059", "quantized_checkpoint": "5cc30b29063660f10c771c1390a11a3573af810ccc7a955af8040a2998d527fa", "sharded_checkpoint": "f9f0b9dc236979a9a31b919a9e3701a752200e7d1a4f7d8132a7f8a266e86919", "engine": "81eea27e37433414bdaa16885e5967af0ddc5d071a8848fe22188cb3f38b1499", "measurement": "0a3d760f166675188b701e6d367f504aede2b789a348595ac6cab2c42234b599", "baseline": "2c530e399cb7680350e89eb9c2b895767262f92dedb76693163643ee9e3c6269", "evaluation": "909d75e350ec2aae8ef8410489b79d60cc3148c975f820ba57a42c406440d36f"}','[{"metric": "kl", "value": 0.020702981144457084, "low": 0.01899352311091399, "high": 0.022495301789537715, "limit": 0.5, "outcome": "PASS", "why": "", "more_samples": null}]','{"path": "./model", "file": "/srv/recipes/fp8_tuned.yaml", "licence": {"id": "NOASSERTION", "stated": null, "texts": {}}}','7c07939648e58f77fc4cdd69f8f56bc7ee39670c683ab1db2954ef9a2f0715d8','2026-11-30T03:47:37.666315+00:00','team@builds',NULL);
INSERT INTO "version" VALUES('published/int8_wo',1,'69f98f5c1e890e3ad8ce1e34baca6ec6fab3da04ffe7273fa0c603203c63186b','478e774d2edf23d60806828437fb39b7cbdf28b851a5e6189ff71ce3a18db1a0','./model','built','6cd0af487ccd6c19e62d2b5dcd8c4d32ebf4af2fc348f70567de2878acfe3605','PASS','{"version": 1, "name": "published/int8_wo", "model": {"path": "./model"}, "format": "int8_wo", "kv_cache": "auto", "engine": {"backend": "aoti", "target": "host", "tp": 1, "pp": 1, "ep": 1, "max_batch_size": 2, "max_seq_len": 128, "options": {}}, "gate": {"data": {"path": "gate.jsonl", "files": [], "samples": "all", "weight": 1.0, "column": "auto", "render": "auto", "bad_rows": "fail"}, "seq_len": 64, "max_sequences": 24, "limits": {"kl": 0.5}}, "publish": {"alias": "candidate"}}','{"source": "adabf37f827b864e6e0542b606639510e88b3b9f0a3f7092dd59e4e43e87ae87", "quantized_checkpoint": "2f3eccfea53110ddc566b6d31532e5c681c38da7a20e949d7489bc72192fc66b", "sharded_checkpoint": "e8d34dca935b6ca58b634f2e262b1e84236f9691e8ebe82d65b02220f45677ec", "engine": "69f98f5c1e890e3ad8ce1e34baca6ec6fab3da04ffe7273fa0c603203c63186b", "measurement": "89155e4b09c0f4c91edd1d68431e060cf076b39a445589f02b4939b32c06ccb5", "baseline": "2c530e399cb7680350e89eb9c2b895767262f92dedb76693163643ee9e3c6269", "evaluation": "b8b39f2416ac14c7dbe63c0ad853f04a38d44bbaf524527ece1e5141c79ef327"}','[{"metric": "kl", "value": 0.0012264079286771752, "low": 0.001082529095376597, "high": 0.0013786376155485154, "limit": 0.5, "outcome": "PASS", "why": "", "more_samples": null}]','{"path": "./model", "file": "/srv/recipes/int8_wo.yaml", "licence": {"id": "NOASSERTION", "stated": null, "texts": {}}}','03217244cba2acf74e33136c0056376bf8806aacc5f40ea5a202f3820a4a28d7','2026-11-30T03:55:49.400616+00:00','team@builds',NULL);
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
CREATE INDEX ix_event_name ON event (name);
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are only added'); END;
CREATE INDEX ix_version_facts_id ON version (facts_id);
CREATE INDEX ix_version_engine_key ON version (engine_key);
CREATE INDEX ix_version_model ON version (model);
CREATE INDEX ix_metric_metric ON metric (metric);
CREATE INDEX ix_waiver_version ON waiver (name, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',6);
COMMIT;
