"""What a distillation says, in each language: lines, comments, and the words that tell a topic."""

from __future__ import annotations

from typing import Any

from hpcft.viz.texts import LANGUAGES, Lang, chosen

# In the order of LANGUAGES.
_TEXTS: dict[str, tuple[str, str, str, str]] = {
    # The beginning.
    "title": (
        "🎓 Visual knowledge distillation",
        "🎓 可視化知識蒸餾訓練",
        "🎓 可视化知识蒸馏训练",
        "🎓 시각적 지식 증류 학습",
    ),
    "settings": (
        "⚙️  Settings: temperature={temperature}, α={alpha}, β={beta}",
        "⚙️  設定: 溫度={temperature}, α={alpha}, β={beta}",
        "⚙️  配置: 温度={temperature}, α={alpha}, β={beta}",
        "⚙️  설정: 온도={temperature}, α={alpha}, β={beta}",
    ),
    "frequency": (
        "📊 A sample is shown every {every} batches",
        "📊 顯示頻率: 每 {every} 個batch顯示一次樣本",
        "📊 显示频率: 每 {every} 个batch显示一次样本",
        "📊 표시 주기: {every}개 배치마다 샘플 표시",
    ),
    "validation_frequency": (
        "📊 A sample is shown every {every} batches of the validation",
        "📊 顯示頻率: 驗證時每 {every} 個batch顯示一次樣本",
        "📊 显示频率: 验证时每 {every} 个batch显示一次样本",
        "📊 표시 주기: 검증할 때 {every}개 배치마다 샘플 표시",
    ),
    "no_samples": (
        "📊 No samples are shown",
        "📊 不顯示樣本",
        "📊 不显示样本",
        "📊 샘플을 표시하지 않음",
    ),
    "epoch": ("📖 Epoch {epoch}/{epochs}",) * 4,
    # A sample.
    "batch": ("📍 Batch {batch}",) * 4,
    "progress": ("⏳ Batch {batch}/{batches} | Loss: {loss:.4f}",) * 4,
    "topic": (
        "📚 Topic: [{topic}]",
        "📚 教學主題:【{topic}】",
        "📚 教学主题:【{topic}】",
        "📚 학습 주제: [{topic}]",
    ),
    "general": ("General", "通用", "通用", "일반"),
    "teacher": ("👨🏫 Teacher: ", "👨🏫 教師模型: ", "👨🏫 教师模型: ", "👨🏫 교사 모델: "),
    "student": ("👨🎓 Student: ", "👨🎓 學生模型: ", "👨🎓 学生模型: ", "👨🎓 학생 모델: "),
    "difference": ("🔍 Difference: ", "🔍 差異: ", "🔍 差异: ", "🔍 차이: "),
    "no_difference": ("none", "無", "无", "없음"),
    "laziness": (
        "{icon} Laziness: [{bar}] {laziness:.2f}%",
        "{icon} 偷懶程度: [{bar}] {laziness:.2f}%",
        "{icon} 偷懒程度: [{bar}] {laziness:.2f}%",
        "{icon} 게으름 정도: [{bar}] {laziness:.2f}%",
    ),
    "loss": (
        "📉 Training loss: {loss:.4f}",
        "📉 訓練損失: {loss:.4f}",
        "📉 训练损失: {loss:.4f}",
        "📉 학습 손실: {loss:.4f}",
    ),
    "validation_loss": (
        "📉 Validation loss: {loss:.4f}",
        "📉 驗證損失: {loss:.4f}",
        "📉 验证损失: {loss:.4f}",
        "📉 검증 손실: {loss:.4f}",
    ),
    "comment": ("💬 Comment: {comment}", "💬 評語: {comment}", "💬 评语: {comment}", "💬 평가: {comment}"),
    # The end of an epoch.
    "epoch_end": (
        "📊 Epoch {epoch} summary",
        "📊 Epoch {epoch} 總結",
        "📊 Epoch {epoch} 总结",
        "📊 Epoch {epoch} 요약",
    ),
    "mean_loss": (
        "📉 Mean loss: {loss:.4f}",
        "📉 平均損失: {loss:.4f}",
        "📉 平均损失: {loss:.4f}",
        "📉 평균 손실: {loss:.4f}",
    ),
    "mean_laziness": (
        "😴 Mean laziness: {laziness:.2f}%",
        "😴 平均偷懶程度: {laziness:.2f}%",
        "😴 平均偷懒程度: {laziness:.2f}%",
        "😴 평균 게으름 정도: {laziness:.2f}%",
    ),
    "topics": ("📚 Samples by topic:", "📚 主題分佈:", "📚 主题分布:", "📚 주제 분포:"),
    "topic_count": (
        "{topic}: {count}",
        "{topic}: {count} 個樣本",
        "{topic}: {count} 个样本",
        "{topic}: 샘플 {count}개",
    ),
    # The end.
    "finished": (
        "🎉 The distillation is finished!",
        "🎉 知識蒸餾訓練完成！",
        "🎉 知识蒸馏训练完成！",
        "🎉 지식 증류 학습 완료!",
    ),
    "total": (
        "📊 Samples shown: {total}",
        "📊 總樣本數: {total}",
        "📊 总样本数: {total}",
        "📊 전체 샘플 수: {total}",
    ),
    "overall": (
        "😴 Mean laziness over the epochs: {laziness:.2f}%",
        "😴 總體平均偷懶程度: {laziness:.2f}%",
        "😴 总体平均偷懒程度: {laziness:.2f}%",
        "😴 전체 평균 게으름 정도: {laziness:.2f}%",
    ),
    "trend": ("Trend: {trend}", "學習趨勢: {trend}", "学习趋势: {trend}", "학습 추세: {trend}"),
    "trend_strong": ("📈 great progress!", "📈 顯著進步！", "📈 显著进步！", "📈 뚜렷한 향상!"),
    "trend_steady": ("📊 steady improvement", "📊 穩步改善", "📊 稳步改善", "📊 꾸준한 개선"),
    "trend_none": (
        "📉 the settings need a change",
        "📉 需要調整策略",
        "📉 需要调整策略",
        "📉 전략 조정이 필요",
    ),
    "advice": ("💡 Advice:", "💡 建議:", "💡 建议:", "💡 제안:"),
    "advice_excellent": (
        "✅ excellent: try a smaller student or a lower temperature",
        "✅ 蒸餾效果優秀，可以考慮減小模型或降低溫度",
        "✅ 蒸馏效果优秀，可以考虑减小模型或降低温度",
        "✅ 증류 효과가 우수합니다. 모델을 줄이거나 온도를 낮춰 보세요",
    ),
    "advice_good": (
        "📚 good: train on, or change the learning rate",
        "📚 蒸餾效果良好，建議繼續訓練或調整學習率",
        "📚 蒸馏效果良好，建议继续训练或调整学习率",
        "📚 증류 효과가 양호합니다. 학습을 계속하거나 학습률을 조정하세요",
    ),
    "advice_poor": (
        "⚠️  poor: raise the temperature, or look at the data",
        "⚠️  蒸餾效果不理想，建議增加溫度或檢查資料品質",
        "⚠️  蒸馏效果不理想，建议增加温度或检查数据质量",
        "⚠️  증류 효과가 좋지 않습니다. 온도를 높이거나 데이터를 확인하세요",
    ),
    # Of the Python API.
    "no_gpu": (
        "⚠️  device '{device}' was asked for and this machine has none: computing on the CPU",
        "⚠️  要求使用 '{device}'，但這台機器沒有: 改用 CPU",
        "⚠️  要求使用 '{device}'，但这台机器没有: 改用 CPU",
        "⚠️  '{device}' 장치를 요청했지만 이 컴퓨터에는 없습니다: CPU로 계산합니다",
    ),
}

# Four a tier, best tier first, in the order of LANGUAGES.
_COMMENTS: tuple[tuple[tuple[str, str, str, str], ...], ...] = (
    (
        (
            "🌟 Excellent! It has mastered what the teacher knows",
            "🌟 優秀！完全掌握了教師的知識",
            "🌟 优秀！完全掌握了教师的知识",
            "🌟 우수합니다! 교사의 지식을 완전히 익혔습니다",
        ),
        (
            "🎉 Great! It has learnt very well",
            "🎉 太棒了！學習得非常好",
            "🎉 太棒了！学习得非常好",
            "🎉 훌륭합니다! 아주 잘 배웠습니다",
        ),
        (
            "✨ Perfect! It is close to the teacher's level",
            "✨ 完美！已經接近教師水準",
            "✨ 完美！已经接近教师水平",
            "✨ 완벽합니다! 교사 수준에 가깝습니다",
        ),
        (
            "🏆 Outstanding! Better than expected",
            "🏆 卓越！超出預期的表現",
            "🏆 卓越！超出预期的表现",
            "🏆 탁월합니다! 기대를 뛰어넘었습니다",
        ),
    ),
    (
        (
            "👍 Very good! Most of the knowledge is there",
            "👍 很好！大部分知識已掌握",
            "👍 很好！大部分知识已掌握",
            "👍 아주 좋습니다! 대부분의 지식을 익혔습니다",
        ),
        (
            "😊 Not bad! Keep up this pace",
            "😊 不錯！繼續保持這個節奏",
            "😊 不错！继续保持这个节奏",
            "😊 괜찮습니다! 이 속도를 유지하세요",
        ),
        (
            "💪 Good! It takes its learning seriously",
            "💪 良好！學習態度很認真",
            "💪 良好！学习态度很认真",
            "💪 좋습니다! 학습 태도가 성실합니다",
        ),
        ("🎯 Clear progress! Go on", "🎯 進步明顯！加油", "🎯 进步明显！加油", "🎯 뚜렷이 나아졌습니다! 힘내세요"),
    ),
    (
        (
            "🤔 All right, but it needs more effort",
            "🤔 還可以，但需要更努力",
            "🤔 还可以，但需要更努力",
            "🤔 괜찮지만 더 노력해야 합니다",
        ),
        (
            "📚 Not fluent in this topic, it needs to learn more",
            "📚 主題不夠熟練，需要再多學習",
            "📚 主题不够熟练，需要再多学习",
            "📚 주제에 익숙하지 않습니다. 더 배워야 합니다",
        ),
        (
            "⚡ There is room for improvement, go on",
            "⚡ 有進步空間，繼續加油",
            "⚡ 有进步空间，继续加油",
            "⚡ 나아질 여지가 있습니다. 계속 힘내세요",
        ),
        (
            "🔄 Its understanding is shallow, more practice is needed",
            "🔄 理解還不夠深入，多練習",
            "🔄 理解还不够深入，多练习",
            "🔄 이해가 아직 얕습니다. 더 연습하세요",
        ),
    ),
    (
        (
            "😓 Far too lazy! It has to learn in earnest",
            "😓 偷懶太多了！需要認真學習",
            "😓 偷懒太多了！需要认真学习",
            "😓 너무 게으릅니다! 진지하게 배워야 합니다",
        ),
        (
            "❌ Not focused enough, once more from the start",
            "❌ 學習不夠專注，重新來過",
            "❌ 学习不够专注，重新来过",
            "❌ 집중이 부족합니다. 처음부터 다시 하세요",
        ),
        (
            "⚠️ Far from the teacher's output, it has to improve",
            "⚠️ 嚴重偏離教師輸出，需要改進",
            "⚠️ 严重偏离教师输出，需要改进",
            "⚠️ 교사의 출력과 크게 다릅니다. 개선이 필요합니다",
        ),
        (
            "🚨 Attention! It does not learn well",
            "🚨 注意！學習效果不理想",
            "🚨 注意！学习效果不理想",
            "🚨 주의하세요! 학습 효과가 좋지 않습니다",
        ),
    ),
)

# Words of the topics under their simplified Chinese names; in Chinese, and the English ones that go with them.
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "互联网": ("互联网", "网络", "Internet", "Web", "在线", "网站"),
    "人工智能": ("人工智能", "AI", "机器学习", "深度学习", "神经网络", "Transformer"),
    "科技": ("科技", "技术", "创新", "发明", "科学"),
    "医疗": ("医疗", "健康", "医学", "疾病", "治疗", "医院"),
    "教育": ("教育", "学习", "学校", "教学", "知识", "培训"),
    "经济": ("经济", "金融", "市场", "股票", "投资", "贸易"),
    "文化": ("文化", "艺术", "音乐", "文学", "历史", "传统"),
    "体育": ("体育", "运动", "比赛", "足球", "篮球", "奥运"),
}
# The topics' names and further words in the other languages.
_IN_LANGUAGE: dict[Lang, dict[str, tuple[str, ...]]] = {
    "en": {
        "互联网": ("Internet", "network", "online", "website", "browser"),
        "人工智能": (
            "Artificial intelligence",
            "machine learning",
            "deep learning",
            "neural network",
            "language model",
        ),
        "科技": ("Technology", "innovation", "invention", "science", "engineering", "research"),
        "医疗": ("Medicine", "medical", "health", "disease", "treatment", "hospital", "patient", "doctor"),
        "教育": ("Education", "learning", "school", "teaching", "teacher", "student", "training", "university"),
        "经济": ("Economy", "economic", "finance", "financial", "market", "stock", "investment", "trade"),
        "文化": ("Culture", "art", "music", "literature", "history", "tradition"),
        "体育": ("Sports", "sport", "match", "football", "basketball", "Olympic", "team"),
    },
    "zh-TW": {
        "互联网": ("網際網路", "網路", "互聯網", "線上", "網站"),
        "人工智能": ("人工智慧", "機器學習", "深度學習", "神經網路"),
        "科技": ("科技", "技術", "創新", "發明", "科學"),
        "医疗": ("醫療", "健康", "醫學", "疾病", "治療", "醫院"),
        "教育": ("教育", "學習", "學校", "教學", "知識", "培訓"),
        "经济": ("經濟", "金融", "市場", "股票", "投資", "貿易"),
        "文化": ("文化", "藝術", "音樂", "文學", "歷史", "傳統"),
        "体育": ("體育", "運動", "比賽", "足球", "籃球", "奧運"),
    },
    "ko": {
        "互联网": ("인터넷", "네트워크", "온라인", "웹사이트"),
        "人工智能": ("인공지능", "기계 학습", "머신러닝", "딥러닝", "신경망"),
        "科技": ("과학기술", "기술", "혁신", "발명", "과학"),
        "医疗": ("의료", "건강", "의학", "질병", "치료", "병원"),
        "教育": ("교육", "학습", "학교", "수업", "지식", "훈련"),
        "经济": ("경제", "금융", "시장", "주식", "투자", "무역"),
        "文化": ("문화", "예술", "음악", "문학", "역사", "전통"),
        "体育": ("스포츠", "운동", "경기", "축구", "농구", "올림픽"),
    },
}


def text(key: str, lang: Lang = "en", **values: Any) -> str:
    """A line with its values put in.

    Raises:
        HpcftError: no such language.
    """
    return chosen(_TEXTS[key], lang).format(**values)


def comments(tier: int, lang: Lang = "en") -> tuple[str, ...]:
    """The comments of a tier, 0 the best and 3 the worst.

    Raises:
        HpcftError: no such language.
    """
    return tuple(chosen(comment, lang) for comment in _COMMENTS[tier])


def topic_keywords(lang: Lang = "en") -> dict[str, list[str]]:
    """The topics by their names in a language, each with the words that tell it. A dictionary to change.

    Data need not be in the language of the console, so that the Chinese words tell a topic in each of them.

    Raises:
        HpcftError: no such language.
    """
    chosen(LANGUAGES, lang)
    if lang == "zh-CN":
        return {name: list(words) for name, words in _KEYWORDS.items()}
    found = {}
    for name, words in _IN_LANGUAGE[lang].items():
        found[words[0]] = list(dict.fromkeys([*words, *_KEYWORDS[name]]))
    return found
