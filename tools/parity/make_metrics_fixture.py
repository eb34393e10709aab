"""Makes packages/caption-metrics/fixtures/metrics.json: invented texts and the figures of the reference packages.

    pip install pycocoevalcap==1.2 pycocotools==2.0.11 nltk==3.10.4 numpy      (needs Java, for the PTB tokenizer)
    pip download --no-deps salesforce-lavis==1.0.2                              (its vqa_eval.py is the official VQA-eval)
    python tools/parity/make_metrics_fixture.py salesforce_lavis-1.0.2-py3-none-any.whl [packages/caption-metrics/fixtures]

captions: 240 images with one caption and one to five references; PTB tokens; Bleu, Rouge, Cider (pycocoevalcap), METEOR
(nltk, exact and stem matches: its WordNet is replaced by an empty one, as the corpus is a download), plain CIDEr (numpy, the
formula of the paper in the form of vrama91/cider). lines: more texts with their tokens; hostile: with random signs put in.
words: stems by nltk's PorterStemmer. vqa: 260 answers with ten annotators each, the accuracy of VQAEval, and types.
A letter with a full stop at the end of a caption is avoided: its tokens depend on the next caption in the file.
No text comes from a data set: labels, templates and signs are in this file.
"""

import contextlib
import importlib.util
import io
import json
import random
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

SUBJECTS = (
    "a man|a woman|two dogs|the cat|an old lady|three children|a group of people|someone|a red-haired girl|a t-shirt|"
    "female police officer|U.S. flag|an 18-wheeler|Mr. Smith|a 12-year-old boy|a black & white photo|a man's hat|the dogs' bowl|"
    "a woman in her 50s|the 1990's car|a \"stop\" sign|a 'no parking' sign|it|he|they|a café|Zürich|a piñata|an x-ray|the U.K. team|"
    "a 3D model|a rock 'n' roll band|a Dr. Pepper can|a sign that says \"do not enter\"|a church (old)|a bird's-eye view|"
    "a jack-o'-lantern|a state-of-the-art kitchen|a B&W image|a 1/2 cup|a $5 bill|a £10 note|smiling face with heart-eyes|keycap: *|"
    "flag: Côte d’Ivoire|man: dark skin tone|Japanese “here” button|thumbs up|down-right arrow|kiss: man, man|1st place medal|"
    "twelve o’clock|six-thirty|woman with veil: medium-light skin tone|collisions|running horses|the happiest dancers"
).split("|")
VERBS = (
    "is|are|isn't|can't|doesn't seem to be|'s|won't be|riding|rides|sits on|sitting on|standing next to|jumps over|jumping over|"
    "holding|holds|cannot see|wants to|gonna|gotta|looking at|looks at|walks by|wouldn't've|could've|they're|I'm|it's|let's|has|shows"
).split("|")
OBJECTS = (
    "a horse|horses|the beach|a frisbee|a plate of food|the 2nd floor|5 apples|10:30|3.5 miles|1,000 people|50%|12/25/2010|Main St.|"
    "a city street|a bench|benches|a laptop|New York City|the 'big' one|another|the other's|himself|nothing|#1|@home|a/b|and/or|"
    "w/ a hat|etc|e.g. this|vs. that|no. 5|a cake w/o icing|a sign: \"stop!\"|a bowl (of rice)|a dog [sic]|an iPhone|a 6'2\" man|"
    "a 12\" TV|80°|a b-flat|mid-air|the left-hand side|side by side|a clock reading 9:15|5pm|2x4|route 66|R2-D2|a.m.|p.m."
).split("|")
JOINS = " |, |; |: | - | -- | – | — |...| ... |, and | / | & ".split("|")
ENDS = ".|.|||!|?|!!|?!|...|..| .| ,|;|:|)|\"|'|.\"|!'|....|…|\n".split("|")
SIGNS = list("~^*_+=|\\<>{}[]()@#$%&'\"`.,;:!?-/") + ["“", "”", "‘", "’", "…", "—", "é", "中", "½", "°", "×", "€", "©", "🙂", "``", "''"]


def sentence(rng):
    text = " ".join([rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS)])
    if rng.random() < 0.4:
        text += rng.choice(JOINS) + " ".join([rng.choice(SUBJECTS), rng.choice(VERBS), rng.choice(OBJECTS)])
    text += rng.choice(ENDS)
    return text.capitalize() if rng.random() < 0.3 else text.upper() if rng.random() < 0.05 else text


def variant(rng, text):
    """Near its original: a part replaced, words dropped, doubled or swapped."""
    words = text.split(" ")
    for _ in range(rng.randint(0, 3)):
        i = rng.randrange(len(words))
        kind = rng.random()
        if kind < 0.4:
            words[i] = rng.choice(rng.choice(OBJECTS + VERBS + SUBJECTS).split(" "))
        elif kind < 0.6 and len(words) > 1:
            del words[i]
        elif kind < 0.8:
            words.insert(i, words[i])
        else:
            j = rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
    return " ".join(words)


def tokens(texts):
    return [v[0] for v in PTBTokenizer().tokenize({i: [{"caption": t}] for i, t in enumerate(texts)}).values()]


def hostile(rng, text):
    for _ in range(rng.randint(1, 3)):
        i = rng.randint(0, len(text))
        text = text[:i] + rng.choice(SIGNS) + text[i:]
    return text


class NoWordNet:
    def synsets(self, word):
        return []


def plain_cider(captions, references):
    def grams(text):
        words = text.split()
        return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, 5)]

    refs = [[grams(t) for t in texts] for texts in references]
    df = Counter(g for texts in refs for g in {g for counts in texts for c in counts for g in c})
    log_n = np.log(float(len(refs)))

    def vector(counts):
        return {g: n * (log_n - np.log(max(1.0, df[g]))) for g, n in counts.items()}

    scores = []
    for caption, texts in zip(captions, refs):
        total = np.zeros(4)
        for ref in texts:
            for n, (said, wanted) in enumerate(zip(grams(caption), ref)):
                a, b = vector(said), vector(wanted)
                dot = sum(w * b.get(g, 0.0) for g, w in a.items())
                na, nb = (np.sqrt(sum(w * w for w in v.values())) for v in (a, b))
                total[n] += dot / (na * nb) if na and nb else dot
        scores.append(10 * total.mean() / len(texts))
    return scores


def caption_cases(rng):
    wanted = [[sentence(rng)] for _ in range(240)]
    for texts in wanted:
        texts += [variant(rng, texts[0]) for _ in range(rng.randint(0, 4))]
    said = [variant(rng, rng.choice(texts)) for texts in wanted]
    said[7], said[11], wanted[19] = "", "...", ["!?."]
    flat = tokens(said + [t for texts in wanted for t in texts])
    token_said, rest = flat[: len(said)], iter(flat[len(said) :])
    token_wanted = [[next(rest) for _ in texts] for texts in wanted]
    gts, res = dict(enumerate(token_wanted)), {i: [t] for i, t in enumerate(token_said)}
    bleu, bleus = Bleu(4).compute_score(gts, res, verbose=0)
    rouge, rouges = Rouge().compute_score(gts, res)
    cider, ciders = Cider().compute_score(gts, res)
    meteors = [meteor_score([r.split() for r in refs], t.split(), wordnet=NoWordNet()) for t, refs in zip(token_said, token_wanted)]
    plain = plain_cider(token_said, token_wanted)
    rows = [
        {"caption": said[i], "references": wanted[i], "tokens": token_said[i], "reference_tokens": token_wanted[i],
         "bleu": [bleus[n][i] for n in range(4)], "rouge_l": float(rouges[i]), "cider_d": float(ciders[i]), "meteor": meteors[i],
         "cider": float(plain[i])}
        for i in range(len(said))
    ]  # fmt: skip
    corpus = {"bleu": bleu, "rouge_l": float(rouge), "cider_d": float(cider), "meteor": float(np.mean(meteors)), "cider": float(np.mean(plain))}
    return {"rows": rows, "corpus": corpus}


def word_cases():
    base = "relate condition rational digit conform radical different vile analogous operate feudal decisive hopeful callous formal sensitive triplicate form electric good revive allow infer airline gyroscope adjust defend irritate replace depend adopt homolog commun activate angular effect bowdler probate rate cease control roll hop tan fall hiss fizz fail file happy sky spy fly die tie lie enjoy geolog theolog archaeolog news inning proceed howe canning y yy yyes toy syzygy agree feed bleed plaster motor sing caress pony cat trouble oat ivy private orrery café naïve straße 3rd".split()
    ends = ",s,es,ed,ing,ings,ly,y,ies,ied,ational,tional,enci,izer,abli,alli,entli,eli,ousli,ization,ation,ator,alism,iveness,fulness,ousness,aliti,iviti,biliti,fulli,logi,icate,ative,alize,iciti,ical,ful,ness,al,ance,ence,er,ic,able,ible,ant,ement,ment,ent,ion,ou,ism,ate,iti,ous,ive,ize,e,ll,eed,ying".split(",")
    words = sorted({b + e for b in base for e in ends} | {b[:-1] + e for b in base for e in ends if len(b) > 2} | {"SKIES", "Flies"})
    stemmer = PorterStemmer()
    return [[w, stemmer.stem(w)] for w in words]


def vqa_eval(wheel):
    spec = importlib.util.spec_from_loader("vqa_eval", loader=None)
    module = importlib.util.module_from_spec(spec)
    source = zipfile.ZipFile(wheel).read("lavis/common/vqa_tools/vqa_eval.py").decode()
    exec(compile(source, "vqa_eval.py", "exec"), module.__dict__)
    return module.VQAEval


class Answers:
    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self):
        return list(self.qa)


def vqa_cases(rng, evaluator):
    short = "yes|no|2|two|none|one|a dog|dog|the dog|Dog|t-shirt|t shirt|1,000|1000|3.5|3.|U.S.|u.s|it's|its|dont|don't|wont|a man and a woman|red/white|red / white|red, white|10:30|ten|o'clock|oclock|y'all'd've|youd've|he's|hes|somebody'd|a|an|the|cafe|café|  yes |yes!|yes.|Yes|on\ttable|on\nthe table|@home|<3|left-hand|left hand|1/2|$5|5 dollars|...|\u00a0yes|(maybe)|\"stop\"|none.|0|a_b|x=y|I'm|Im|Id've|let's|ow's'at|mr.|6'2\"|2,000,000|a, b|half 1,5|.5|. 5|five five|7 .".split("|")
    qa, res, rows = {}, {}, []
    for i in range(260):
        pool = rng.sample(short, rng.randint(1, 4))
        answers = [rng.choice(pool) for _ in range(10 if rng.random() < 0.9 else rng.randint(1, 5))]
        said = rng.choice(pool) if rng.random() < 0.8 else rng.choice(short)
        if i == 5:
            said = ". a" * 40
        if i == 6:
            said = ""
        kinds = {"question_type": rng.choice(["what", "how many", "is the"]), "answer_type": rng.choice(["yes/no", "number", "other"])}
        rows.append({"answer": said, "answers": list(answers), **kinds})
        qa[i] = {"answers": [{"answer": a, "answer_id": j} for j, a in enumerate(answers)], **kinds}
        res[i] = {"answer": said}
    judge = evaluator(Answers(qa), Answers(res), n=12)
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
    plain = evaluator()
    for i, row in enumerate(rows):
        row["accuracy"] = judge.evalQA[i] / 100
        text = row["answer"].replace("\n", " ").replace("\t", " ").strip()
        row["normalized"] = plain.processDigitArticle(plain.processPunctuation(text))
    return {"rows": rows, **judge.accuracy}


def main():
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "packages/caption-metrics/fixtures")
    rng = random.Random(5)
    captions = caption_cases(rng)
    lines = [sentence(rng) for _ in range(400)] + [w for w in SUBJECTS + OBJECTS]
    odd = [hostile(rng, sentence(rng)) for _ in range(300)]
    content = {
        "captions": captions,
        "lines": [list(pair) for pair in zip(lines, tokens(lines))],
        "hostile": [list(pair) for pair in zip(odd, tokens(odd))],
        "words": word_cases(),
        "vqa": vqa_cases(rng, vqa_eval(sys.argv[1])),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print({k: len(v["rows"] if isinstance(v, dict) else v) for k, v in content.items()}, captions["corpus"])


main()
