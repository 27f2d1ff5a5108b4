"""What is said about findings, in each language."""

from __future__ import annotations

from typing import Any

from hpcft.data.care.rules import CODE_PAGE, EMPTY, ENCODING, HTML, LENGTH
from hpcft.data.care.survey import CONFLICTS, CUT, CUT_AT_LIMIT, DUPLICATES

IMBALANCE, SAME_ANSWER, NEAR, NEAR_CONFLICT = "imbalance", "nearly_one_answer", "near_duplicates", "label_noise"
OVERLAP, NEAR_OVERLAP, TOO_LONG, DROPPED = "overlap", "near_overlap", "truncated_sources", "dropped_targets"

# In the order of hpcft.spec.types.Lang: en, zh-TW, zh-CN, ko.
_TEXTS: dict[str, tuple[str, str, str, str]] = {
    EMPTY: (
        "{count} row(s) ({share}) lack a text: fill them in, or remove them with hpcft data clean",
        "{count} 筆資料（{share}）缺少文字：請補上，或以 hpcft data clean 移除",
        "{count} 条数据（{share}）缺少文本：请补上，或用 hpcft data clean 移除",
        "{count}개 행({share})에 텍스트가 없습니다: 채우거나 hpcft data clean으로 제거하세요",
    ),
    ENCODING: (
        "{count} row(s) ({share}) have characters of a wrong decoding: read the source in its own encoding, or "
        "remove them "
        "with hpcft data clean",
        "{count} 筆資料（{share}）有編碼錯誤的字元：請以原始編碼重新讀取，或以 hpcft data clean 移除",
        "{count} 条数据（{share}）有编码错误的字符：请按原始编码重新读取，或用 hpcft data clean 移除",
        "{count}개 행({share})에 잘못 해석된 문자가 있습니다: 원래 인코딩으로 다시 읽거나 hpcft data clean으로 "
        "제거하세요",
    ),
    CODE_PAGE: (
        "{count} row(s) ({share}) have control characters where Windows has quotes and dashes: the source is "
        "of code page "
        "1252, not Latin-1; hpcft data clean puts them right",
        "{count} 筆資料（{share}）在 Windows 引號與破折號的位置出現控制字元：來源是 cp1252 而非 Latin-1；hpcft "
        "data clean 會修正",
        "{count} 条数据（{share}）在 Windows 引号与破折号的位置出现控制字符：来源是 cp1252 而非 Latin-1；hpcft "
        "data clean 会修正",
        "{count}개 행({share})에 Windows의 따옴표와 줄표 자리에 제어 문자가 있습니다: 원본은 Latin-1이 아니라 "
        "cp1252입니다; "
        "hpcft data clean이 바로잡습니다",
    ),
    CUT: (
        "{count} answer(s) ({share}) open a bracket that is never closed: were they cut when the set was made?",
        "{count} 個答案（{share}）有未閉合的括號：製作資料時是否被截斷？",
        "{count} 个答案（{share}）有未闭合的括号：制作数据时是否被截断？",
        "{count}개 답({share})에 닫히지 않은 괄호가 있습니다: 데이터를 만들 때 잘리지 않았나요?",
    ),
    CUT_AT_LIMIT: (
        "{count} answer(s) ({share}) end in mid-sentence at the same, greatest length: were they cut there?",
        "{count} 個答案（{share}）在相同的最大長度處中斷：是否在該處被截斷？",
        "{count} 个答案（{share}）在相同的最大长度处中断：是否在该处被截断？",
        "{count}개 답({share})이 똑같은 최대 길이에서 문장 중간에 끝납니다: 거기서 잘렸나요?",
    ),
    CONFLICTS: (
        "{count} row(s) ({share}) have an input that stands elsewhere with another label: decide which one is right",
        "{count} 筆資料（{share}）的輸入在別處有不同標籤：請確認何者正確",
        "{count} 条数据（{share}）的输入在别处有不同标签：请确认何者正确",
        "{count}개 행({share})의 입력이 다른 곳에서 다른 레이블을 가집니다: 어느 것이 맞는지 정하세요",
    ),
    LENGTH: (
        "{count} row(s) ({share}) have a text outside of checks.min_text_length and checks.max_text_length: "
        "hpcft data clean "
        "removes them",
        "{count} 筆資料（{share}）的文字長度超出 checks.min_text_length 與 checks.max_text_length：hpcft data "
        "clean 會移除",
        "{count} 条数据（{share}）的文本长度超出 checks.min_text_length 与 checks.max_text_length：hpcft data "
        "clean 会移除",
        "{count}개 행({share})의 텍스트 길이가 checks.min_text_length와 checks.max_text_length를 벗어납니다: "
        "hpcft data "
        "clean이 제거합니다",
    ),
    HTML: (
        "{count} row(s) ({share}) have what looks like HTML tags: hpcft data clean takes them out",
        "{count} 筆資料（{share}）含有類似 HTML 標籤的內容：hpcft data clean 會去除",
        "{count} 条数据（{share}）含有类似 HTML 标签的内容：hpcft data clean 会去除",
        "{count}개 행({share})에 HTML 태그로 보이는 것이 있습니다: hpcft data clean이 걷어냅니다",
    ),
    DUPLICATES: (
        "{count} row(s) ({share}) stand further up already: hpcft data clean keeps the first",
        "{count} 筆資料（{share}）與前面重複：hpcft data clean 只保留第一筆",
        "{count} 条数据（{share}）与前面重复：hpcft data clean 只保留第一条",
        "{count}개 행({share})이 앞의 행과 같습니다: hpcft data clean이 첫 행만 남깁니다",
    ),
    IMBALANCE: (
        "the most frequent class has {ratio} times as many rows as the rarest: look at macro F1, and think of "
        "adding rows "
        "or weighting",
        "最多的類別是最少的 {ratio} 倍：請看 macro F1，並考慮補充資料或加權",
        "最多的类别是最少的 {ratio} 倍：请看 macro F1，并考虑补充数据或加权",
        "가장 많은 클래스가 가장 적은 것의 {ratio}배입니다: macro F1을 보고, 행을 보태거나 가중치를 고려하세요",
    ),
    SAME_ANSWER: (
        "{count} of {rows} answers ({share}) are “{answer}”: a model that always says so is right nearly always",
        "{rows} 個答案中有 {count} 個（{share}）是「{answer}」：永遠這樣回答的模型幾乎總是對的",
        "{rows} 个答案中有 {count} 个（{share}）是“{answer}”：永远这样回答的模型几乎总是对的",
        "{rows}개 답 가운데 {count}개({share})가 “{answer}”입니다: 늘 그렇게 답하는 모델이 거의 늘 맞습니다",
    ),
    NEAR: (
        "{count} of the {looked} rows that were compared ({share}) are nearly the same as one further up",
        "比對的 {looked} 筆中有 {count} 筆（{share}）與前面的幾乎相同",
        "比对的 {looked} 条中有 {count} 条（{share}）与前面的几乎相同",
        "비교한 {looked}개 행 가운데 {count}개({share})가 앞의 행과 거의 같습니다",
    ),
    NEAR_CONFLICT: (
        "{count} row(s) are nearly the same as one with another label: some of the labels may be wrong",
        "{count} 筆與標籤不同的資料幾乎相同：部分標籤可能有誤",
        "{count} 条与标签不同的数据几乎相同：部分标签可能有误",
        "{count}개 행이 레이블이 다른 행과 거의 같습니다: 일부 레이블이 틀렸을 수 있습니다",
    ),
    OVERLAP: (
        "{count} of the {looked} validation rows ({share}) ask what stands in the training rows: scores of "
        "them are no "
        "proof of learning",
        "{looked} 筆驗證資料中有 {count} 筆（{share}）的輸入也在訓練資料中：其分數不能證明學習成效",
        "{looked} 条验证数据中有 {count} 条（{share}）的输入也在训练数据中：其分数不能证明学习成效",
        "검증 {looked}개 행 가운데 {count}개({share})의 입력이 학습 데이터에도 있습니다: 그 점수는 학습의 "
        "증거가 아닙니다",
    ),
    NEAR_OVERLAP: (
        "{count} of the {looked} validation rows that were compared ({share}) are nearly the same as a training row",
        "比對的 {looked} 筆驗證資料中有 {count} 筆（{share}）與訓練資料幾乎相同",
        "比对的 {looked} 条验证数据中有 {count} 条（{share}）与训练数据几乎相同",
        "비교한 검증 {looked}개 행 가운데 {count}개({share})가 학습 행과 거의 같습니다",
    ),
    TOO_LONG: (
        "{count} of {looked} rows ({share}) lose a part of their source at data.max_length={max_length}",
        "在 data.max_length={max_length} 下，{looked} 筆中有 {count} 筆（{share}）的輸入會被截斷",
        "在 data.max_length={max_length} 下，{looked} 条中有 {count} 条（{share}）的输入会被截断",
        "data.max_length={max_length}에서는 {looked}개 행 가운데 {count}개({share})의 입력이 잘립니다",
    ),
    DROPPED: (
        "{count} of {looked} rows ({share}) are left out at data.max_length={max_length}: the answer alone "
        "does not fit",
        "在 data.max_length={max_length} 下，{looked} 筆中有 {count} 筆（{share}）被捨棄：僅答案就放不下",
        "在 data.max_length={max_length} 下，{looked} 条中有 {count} 条（{share}）被舍弃：仅答案就放不下",
        "data.max_length={max_length}에서는 {looked}개 행 가운데 {count}개({share})가 빠집니다: 답만으로도 넘칩니다",
    ),
}
_LANGUAGES = ("en", "zh-TW", "zh-CN", "ko")


def sentence(kind: str, lang: str, **values: Any) -> str:
    """A finding as a sentence.

    Args:
        values: `count` and what it is a share of, `looked`, and what else the text of its kind names.
    """
    of = values.get("looked") or values.get("rows")
    if of:
        values["share"] = percent(values.get("count", 0) / of)
    shown = {k: f"{v:,}" if isinstance(v, int) and k != "max_length" else v for k, v in values.items()}
    return _TEXTS[kind][_LANGUAGES.index(lang)].format(**shown)


def percent(share: float) -> str:
    """A share as a per cent text, to two significant digits where it is small.

    >>> percent(0.9983), percent(0.12), percent(0.0004)
    ('99.8 %', '12.0 %', '0.04 %')
    """
    return f"{share * 100:.1f} %" if share >= 0.001 or share == 0 else f"{share * 100:.2g} %"
