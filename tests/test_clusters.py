"""Topics, the terms that name them, and near-duplicates."""

import re
import tracemalloc

import numpy as np
import pytest
from run_dirs import DEMO
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer

from grads.selection import duplicates, topics
from grads.selection.broken import is_broken
from grads.selection.duplicates import ALIKE, near_duplicates
from grads.selection.topics import (
    cluster_terms,
    default_count,
    find_clusters,
    principal_components,
)
from grads.store.files import scratch
from grads.store.runs import Run

COOKING = [
    "Simmer the onion in butter, then add flour and garlic to the sauce.",
    "Bake the bread with flour and butter in the oven.",
    "The garlic and the onion go into the sauce before the butter.",
]
SPACE = [
    "The telescope saw a distant galaxy and the orbit of a planet.",
    "A planet keeps its orbit around the star in this galaxy.",
    "With the telescope we found the planet and its orbit.",
]
HOSPITAL = [
    "患者发烧咳嗽，医生建议休息。",
    "医生检查患者的血压，患者需要药物治疗。",
    "药物治疗后患者退烧。",
]
COURT = ["法院审理合同纠纷，原告要求赔偿。", "合同违约，法院判决被告赔偿。", "原告向法院提交合同。"]
TWO = np.array([0, 0, 0, 1, 1, 1])


def blobs(sizes, seed=0, width=8):
    """Well separated groups: features and the group of each, shuffled."""
    rng = np.random.default_rng(seed)
    centres = 20 * rng.standard_normal((len(sizes), width))
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = centres[group] + 0.1 * rng.standard_normal((len(group), width))
    return points.astype(np.float32), group


def same_partition(a, b):
    return np.array_equal(a[:, None] == a[None], b[:, None] == b[None])


def words(n, seed):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(n)]


def altered(text, *places):
    """The text with some of its words replaced by another of the same length."""
    parts = text.split()
    for place in places:
        parts[place] = "QQQQQQ"
    return " ".join(parts)


# -- features


@pytest.mark.parametrize(
    ("n", "width", "reduced"),
    [(200, 100, 64), (30, 100, 30), (200, 10, 10), (1, 9, 1), (3000, 256, 64)],
)
def test_features_are_reduced_to_at_most_64(n, width, reduced):
    """As by the decomposition of all of them at once, however they are cut into blocks."""
    rng = np.random.default_rng(0)
    scales = np.linspace(3, 0.2, width)  # no two components alike
    features = (rng.standard_normal((n, width)) * scales + 50).astype(np.float32)
    result = principal_components(np.array_split(features, 7)).of(features)
    assert result.shape == (n, reduced)
    assert result.dtype == np.float32
    with np.errstate(invalid="ignore"):  # one sample has no variance
        expected = PCA(reduced, svd_solver="full").fit_transform(features.astype(np.float64))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_reduction_keeps_distances_where_64_numbers_suffice():
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((100, 20)) @ rng.standard_normal((20, 300))).astype(np.float32)
    reduced = principal_components([features]).of(features)
    before = np.linalg.norm(features[:, None] - features[None], axis=-1)
    after = np.linalg.norm(reduced[:, None] - reduced[None], axis=-1)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-2)


# -- clusters


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (50, 5), (200, 10), (1152, 24), (10**6, 24)])
def test_default_count(n, k):
    assert default_count(n) == k


@pytest.mark.parametrize("large", [False, True])
def test_separated_groups_are_found_largest_first(large, monkeypatch):
    if large:
        monkeypatch.setattr(topics, "LARGE", 10)
    features, group = blobs([20, 70, 40])
    found = find_clusters(features, ["text"] * 130, seed=0, k=3)
    assert same_partition(found.label, group)
    assert found.sizes == [70, 40, 20]
    assert [int((found.label == c).sum()) for c in range(3)] == found.sizes
    assert len(found.terms) == 3


@pytest.mark.parametrize("large", [False, True])
def test_clusters_are_seeded_and_sizes_add_up(large, monkeypatch):
    if large:
        monkeypatch.setattr(topics, "LARGE", 10)
    features = np.random.default_rng(0).random((150, 5)).astype(np.float32)
    first, again = (find_clusters(features, ["text"] * 150, seed=4, k=None) for _ in range(2))
    np.testing.assert_array_equal(first.label, again.label)
    assert len(first.sizes) == default_count(150)
    assert sum(first.sizes) == 150
    assert first.sizes == sorted(first.sizes, reverse=True)


def test_no_more_clusters_than_distinct_points():
    features = np.repeat(np.eye(3, dtype=np.float32), [2, 5, 3], axis=0)
    found = find_clusters(features, ["text"] * 10, seed=0, k=8)
    assert found.sizes == [5, 3, 2]
    assert same_partition(found.label, np.repeat(np.arange(3), [2, 5, 3]))


@pytest.mark.parametrize(("k", "found"), [(2, 2), (3, 3), (8, 3)])
def test_distinct_rows_are_counted_as_far_as_is_asked_for(k, found):
    """Zeros of either sign are one."""
    rows = np.array([[0, 1], [-0.0, 1], [2, 1], [0, 1], [2, 3]], np.float32)
    assert topics._distinct_rows(rows, k) == found


def test_one_sample_is_one_cluster():
    found = find_clusters(np.zeros((1, 1), np.float32), ["a planet"], seed=0, k=None)
    assert found.sizes == [1]
    assert found.label.tolist() == [0]
    assert found.terms == [["planet"]]


# -- terms


def test_english_terms_tell_two_topics_apart():
    cooking, space = cluster_terms(COOKING + SPACE, TWO, 2)
    assert {"butter", "flour", "garlic", "onion", "sauce"} <= set(cooking)
    assert {"galaxy", "orbit", "planet", "telescope"} <= set(space)
    assert not set(cooking) & set(space)
    assert not {"the", "and", "with", "this", "its", "then"} & {*cooking, *space}


def test_halves_of_contractions_are_no_terms():
    cooking = [f"I don't think it doesn't rise. You didn't knead? {text}" for text in COOKING]
    terms = cluster_terms(cooking + SPACE, TWO, 2)[0]
    assert not {"don", "doesn", "didn"} & set(terms)


def test_chinese_terms_have_two_to_four_characters():
    hospital, court = cluster_terms(HOSPITAL + COURT, TWO, 2)
    assert "患者" in hospital
    assert {"合同", "法院"} <= set(court)
    for topic, texts in ((hospital, HOSPITAL), (court, COURT)):
        for term in topic:
            assert re.fullmatch(r"[\u4e00-\u9fff]{2,4}", term)
            assert term in "".join(texts)


def test_no_term_lies_within_another_and_there_are_at_most_six():
    for terms in cluster_terms(HOSPITAL + COURT, TWO, 2):
        assert 0 < len(terms) <= 6
        assert not any(a in b for a in terms for b in terms if a != b)


def test_texts_of_only_punctuation_have_no_terms():
    assert cluster_terms(["?!", "...", "", "1 + 1"], np.array([0, 0, 1, 1]), 2) == [[], []]


def test_a_cluster_without_words_has_no_terms():
    """Not those of the others."""
    spoken, silent = cluster_terms([*SPACE, "?!", "...", "1 + 1"], TWO, 2)
    assert "planet" in spoken
    assert silent == []


def test_a_cluster_with_most_of_the_words_has_terms():
    label = np.array([0] * 30 + [1])
    most, rest = cluster_terms([*SPACE * 10, COOKING[1]], label, 2)
    assert "planet" in most
    assert "butter" in rest


@pytest.mark.parametrize(("chinese", "english"), [(1, 1), (3, 1), (1, 3)])
def test_in_a_pool_of_two_languages_each_cluster_has_terms_of_its_own(chinese, english):
    texts = COURT * chinese + SPACE * english
    label = np.repeat([0, 1], [3 * chinese, 3 * english])
    court, space = cluster_terms(texts, label, 2)
    assert {"合同", "法院"} <= set(court)
    assert all(2 <= len(term) <= 4 and term in "".join(COURT) for term in court)
    assert {"orbit", "planet"} <= set(space)
    assert all(term in " ".join(SPACE).lower() for term in space)


def test_a_term_is_said_in_more_than_one_text():
    """One text that repeats a word over and over names no topic."""
    texts = [*COOKING, "zzyzx " * 50 + "butter", *SPACE]
    cooking, _ = cluster_terms(texts, np.array([0, 0, 0, 0, 1, 1, 1]), 2)
    assert "zzyzx" not in cooking
    assert "butter" in cooking


def test_a_term_is_no_fragment_of_a_word():
    """Of Chinese, whose words have no spaces between them, the longer run is the word."""
    clinic = ["高血压患者的药", "控制高血压", "高血压和心脏", "预防高血压"]
    clinic_terms, _ = cluster_terms(clinic + COURT, np.array([0] * 4 + [1] * 3), 2)
    assert clinic_terms[0] == "高血压"
    assert not {"高血", "血压"} & set(clinic_terms)
    assert not any(term[0] in "的和" or term[-1] in "的和" for term in clinic_terms)


BROKEN = {
    "keyboard mash": "asdf jfkdls qwe vaccinnnnn sdfgh lkjh tetanus asdkj ffffff",
    "mojibake": "Itâ€™s an irregular heartbeat: thatâ€™s a stroke. Ã‰ven people who donâ€™t",
    "lost characters": "W\ufffdrfarin has a n\ufffdrrow range between too lit\ufffdle and more.",
    "spaced out": "W h a t   i s   f r o z e n   s h o u l d e r ? A st i f f and pain ful one",
    "badly scanned": "hyp0glycaemia is c0mmon, s0me pe0ple get c0nfused 0r shake sh0uld it last",
}
SOUND = {
    "English": "We were there, where they were: the rhythms of HTTPS and JSON, 100000 of them.",
    "German": "Angstschweiß, Rechtsschutzversicherung, Borschtsch und Schlittschuhe in Düsseldorf.",
    "Czech": "Strč prst skrz krk. Vlk zmrzl, zhltl hrst zrn.",
    "Portuguese": "Às vezes não há solução: a ação é rápida, o coração também. Ânimo!",
    "French": "Où êtes-vous allé cet été ? À l'hôtel, là-bas, près de la forêt.",
    "Chinese": "患者发烧咳嗽，医生建议休息。",
    "Korean": "고혈압은 혈압이 높은 상태입니다.",
    "code": "for i in range(10000):\n    x1, y0 = f(a, b, c)  # utf8mb4, base64, h2o, k8s",
    "algebra": "a x + b y = c, so x = (c - b y) / a for all a, b, c, x, y",
    "nothing": "",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_texts_are_told(kind):
    assert is_broken(BROKEN[kind])


@pytest.mark.parametrize("kind", SOUND)
def test_languages_and_code_are_not_damaged(kind):
    assert not is_broken(SOUND[kind])


def test_damaged_texts_are_a_topic_of_their_own():
    """Wherever their features put them; the others are found as they would be without."""
    features, group = blobs([20, 12])
    texts = ["a planet and its orbit"] * 32
    damaged = [3, 11, 30]
    for place in damaged:
        texts[place] = BROKEN["mojibake"]
    found = find_clusters(features, texts, seed=0, k=2)
    assert np.flatnonzero(found.label == found.broken).tolist() == damaged
    whole = np.setdiff1d(np.arange(32), damaged)
    assert same_partition(found.label[whole], group[whole])
    assert found.sizes == sorted(found.sizes, reverse=True)
    assert found.terms[found.broken] == []
    alone = find_clusters(features[:1], [BROKEN["mojibake"]], seed=0, k=None)
    assert (alone.sizes, alone.broken) == ([1], 0)


# -- near-duplicates


def test_altered_copies_are_grouped_transitively():
    text = " ".join(words(40, seed=1))
    once = altered(text, 3, 8, 12, 20, 30, 39)
    twice = altered(once, 0, 6, 15, 18, 24, 33)
    texts = [" ".join(words(40, seed=2)), twice, " ".join(words(40, seed=3)), text, once]
    alone = near_duplicates([twice, text], seed=0)
    assert alone.tolist() == [-1, -1]  # too far apart without the one in between
    assert near_duplicates(texts, seed=0).tolist() == [-1, 1, -1, 1, 1]


def test_groups_stay_apart_and_bear_their_lowest_position():
    one, two = (" ".join(words(40, seed)) for seed in (1, 2))
    texts = [" ".join(words(40, seed=3)), two, one, altered(one, 5), altered(two, 9), one]
    assert near_duplicates(texts, seed=0).tolist() == [-1, 1, 2, 2, 1, 2]


def test_distinct_texts_are_in_no_group():
    texts = [" ".join(words(30, seed)) for seed in range(20)]
    assert (near_duplicates(texts, seed=0) == -1).all()


def test_many_identical_samples_are_one_group():
    """More than the neighbours that are looked at."""
    assert (near_duplicates(COOKING[:1] * 60, seed=0) == 0).all()


def test_chinese_copies_are_grouped():
    long = "".join(HOSPITAL) + "".join(COURT)
    texts = [long, "".join(COURT[::-1]), long.replace("退烧", "好转")]
    assert near_duplicates(texts, seed=0).tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("texts", "group"), [(SPACE[:1], [-1]), (SPACE[:2], [-1, -1]), (SPACE[:1] * 2, [0, 0])]
)
def test_one_or_two_samples(texts, group):
    assert near_duplicates(texts, seed=0).tolist() == group


def grams_of(text):
    """The character 5-grams of a text, as scikit-learn finds them."""
    return set(CountVectorizer(analyzer="char_wb", ngram_range=(5, 5)).build_analyzer()(text))


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a", "ab", "abc", "abcd", "a b  c", "Ab abC abcd abcde abcdef", "  x\n\ty  "),
        *COOKING,
        *HOSPITAL,
        "tabs\tand\u00a0other spaces\u3000here",
        "\U0001f600 smile\U0001f600s \ud800 lone",
    ],
)
def test_grams_are_those_of_the_analyzer(text):
    """Whatever stands before and behind it."""
    others = ["xyz", text, "abc de"]
    counted = np.diff(duplicates._grams(others).indptr)
    assert counted.tolist() == [len(grams_of(one)) for one in others]


def test_overlap_is_that_of_sets():
    texts = [" ".join(words(12, 1)), altered(" ".join(words(12, 1)), 3, 7), "a b c a", "c b x"]
    left, right = map(np.ravel, np.meshgrid(range(4), range(4)))
    sets = [grams_of(text) for text in texts]
    blocks = iter([texts[:3], texts[3:]])
    grams = duplicates._Grams(blocks, np.array([len(one) for one in sets]), duplicates.IN_MEMORY)
    expected = [
        len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in zip(left, right, strict=True)
    ]
    np.testing.assert_allclose(duplicates._overlap(grams, left, right), expected, rtol=1e-6)


def pairs_by_brute_force(texts):
    """All pairs, by sets of n-grams: what near-duplicates are."""
    grams = [grams_of(text) for text in texts]
    return {
        (i, j)
        for i, a in enumerate(grams)
        for j, b in enumerate(grams[:i])
        if a and len(a & b) >= ALIKE * len(a | b)
    }


def groups_of(n, pairs):
    """The lowest position of each sample's group, by walking along the pairs."""
    group = list(range(n))
    for _ in range(n):
        for i, j in pairs:
            group[i] = group[j] = min(group[i], group[j])
    alone = [group.count(one) == 1 for one in group]
    return [-1 if lonely else one for one, lonely in zip(group, alone, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_all_pairs(seed):
    """Whatever their order, their number of copies and how much is altered."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(words(25, 100 * seed + i)) for i in range(60)]
    for _ in range(80):
        text = texts[rng.integers(len(texts))]
        texts.append(altered(text, *rng.integers(0, 25, rng.integers(0, 5))))
    texts = [texts[i] for i in rng.permutation(len(texts))]
    expected = groups_of(len(texts), pairs_by_brute_force(texts))
    assert near_duplicates(texts, seed).tolist() == expected
    assert near_duplicates(texts, seed).tolist() == expected, "the same each time"


@pytest.mark.parametrize("size", [1, 7, 40, 100])
def test_what_two_sets_share_does_not_depend_on_the_blocks(size):
    ours = [" ".join(words(25, i)) for i in range(12)] + ["", "a b"]
    theirs = [altered(ours[i % 12], *range(i % 9)) for i in range(60)] + ["a b", ""]
    blocks = (theirs[i : i + size] for i in range(0, len(theirs), size))
    expected = {
        (i, j): len(a & b) / len(a | b)
        for i, a in enumerate(map(grams_of, ours))
        for j, b in enumerate(map(grams_of, theirs))
        if a and len(a & b) >= ALIKE * len(a | b)
    }
    found = {(i, j): overlap for i, j, overlap in duplicates.alike_between(ours, blocks)}
    assert 12 < len(expected) < 60
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_bucket_of_thousands_is_one_group(monkeypatch):
    """Rows of one template: each is held against a few others, and the chain joins them all."""
    frame = " ".join(words(40, 1))
    texts = [f"{frame} {' '.join(words(2, i))}" for i in range(1500)]
    counted = []
    overlap = duplicates._overlap
    monkeypatch.setattr(
        duplicates, "_overlap", lambda g, a, b: counted.append(len(a)) or overlap(g, a, b)
    )
    assert (near_duplicates(texts, 0) == 0).all()
    assert sum(counted) < 1500 * 50, "far from all pairs"


def test_texts_of_few_words_are_passed_over_without_looking_at_their_grams(monkeypatch):
    """Most share a band with others by chance, so that nearly all of them were compared."""
    rng, known = np.random.default_rng(0), words(150, 0)
    texts = [" ".join(rng.choice(known, 60)) for _ in range(2_000)]
    texts += [altered(text, 3, 9) for text in texts[:50]]
    candidates = sum(
        len(left)
        for left, _ in duplicates._candidates(duplicates._signatures([texts], 2_050, 0).bands)
    )
    counted = []
    overlap = duplicates._overlap
    monkeypatch.setattr(
        duplicates, "_overlap", lambda g, a, b: counted.append(len(a)) or overlap(g, a, b)
    )
    groups = near_duplicates(texts, 0)
    assert groups[2_000:].tolist() == [*range(50)]
    assert candidates > 2_000
    assert sum(counted) < 150


def test_texts_that_are_just_alike_are_not_passed_over():
    """Their signatures agree in 0.70, give or take; 1 in 200 shares no band."""
    alike = 0
    for i in range(400):
        text = " ".join(words(100, i))
        other = altered(text, *range(28))
        one, two = grams_of(text), grams_of(other)
        assert ALIKE <= len(one & two) / len(one | two) < 0.72
        alike += near_duplicates([text, other], seed=i).tolist() == [0, 0]
    assert alike >= 394


def test_the_grams_of_candidates_are_not_in_memory(tmp_path, monkeypatch):
    """All of them are candidates here; as two sparse matrices they took four times their size."""
    monkeypatch.setattr(duplicates, "TEXTS", 64)
    monkeypatch.setattr(duplicates, "PAIRS", 64)
    frame = [" ".join(words(140, i)) for i in range(1_000)]
    texts = [*frame, *(altered(text, 3) for text in frame)]
    held = 4 * sum(len(grams_of(text)) for text in texts)
    tracemalloc.start()
    groups = near_duplicates(texts, 0, lambda size: scratch(tmp_path, size, np.int32))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert groups.tolist() == [*range(1_000), *range(1_000)]
    assert most < 2 * held
    assert not list(tmp_path.iterdir())


def test_the_groups_of_the_demo_stay(tmp_path):
    """Those that looking at all neighbours found."""
    run = Run.open(DEMO / "run")
    table = run.read_table(run.features_file, ["sample_id", "duplicate_group"])
    samples = run.read_samples(table["sample_id"].to_pylist())
    texts = [
        " ".join(t["content"] for t in samples[i]["turns"] if t["role"] != "system")
        for i in table["sample_id"].to_pylist()
    ]
    group = table["duplicate_group"].to_pylist()
    assert max(group) > 0
    for seed in range(3):
        assert near_duplicates(texts, seed).tolist() == group


def test_texts_are_signed_in_blocks(monkeypatch):
    texts = [" ".join(words(20, seed)) for seed in range(45)]
    texts[40], texts[30] = texts[7], altered(texts[2], 3)
    whole = near_duplicates(texts, 0)
    monkeypatch.setattr(duplicates, "TEXTS", 7)
    monkeypatch.setattr(duplicates, "PAIRS", 3)
    np.testing.assert_array_equal(near_duplicates(texts, 0), whole)
    expected = np.full(45, -1)
    expected[[7, 40]], expected[[2, 30]] = 7, 2
    np.testing.assert_array_equal(whole, expected)


def test_texts_without_words_are_no_duplicates():
    assert near_duplicates(["", "", " ", "a planet"], 0).tolist() == [-1, -1, -1, -1]
