"""Which language a text is written in: right texts are let through, foreign ones are caught, the rest is left open."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfinstruct import languages
from selfinstruct.languages import identify, is_written_in, language_name
from selfinstruct.novelty import tokenize

# Tasks and answers as a teacher writes them: short and long, with names, figures, code and foreign words.
TEXTS = {
    "en": (
        "Name three fruits.",
        "Summarise this paragraph",
        "What is the capital of Mongolia?",
        "Write a haiku about the sea at night.",
        "Explain why leaves change colour in autumn to a child of six.",
        "Given a list of cities, sort them by population from largest to smallest.",
        "Rewrite the sentence in the passive voice without losing any detail.",
        "Angela Merkel and Emmanuel Macron met in Strasbourg on 12 May 2014; what did they discuss?",
        "Fix the bug in this function: def mean(xs): return sum(xs) / len(x)",
        "Convert 25 degrees Celsius to Fahrenheit and show your working.",
        "Suggest a gift for my father, who likes fishing, old films and strong coffee, below 40 dollars.",
        "Is the following review positive or negative? Answer with one word only.",
        "Your flight to São Paulo leaves at 10:45 from gate B12, so be there by ten.",
        "Choose the odd one out and say why: violin, cello, trumpet, harp.",
    ),
    "zh": (
        "写一首诗",
        "请把下面的句子翻译成英文。",
        "解释一下光合作用的过程,用小学生能听懂的话。",
        "北京到上海的高铁需要多长时间?",
        "根据以下关键词写一段100字左右的产品介绍:保温杯、便携、环保。",
        "請用繁體中文寫一封感謝信給你的老師。",
        "請說明台灣的健保制度與其他國家有什麼不同。",
        "把 Python 代码 print('hello') 改写成函数,并加上注释。",
        "判断这条评论是正面的还是负面的。",
        "列出五种可以在家里做的运动,并说明每种运动的好处。",
        "李明在2019年从清华大学毕业,现在在Google工作。",
        "给一家新开的咖啡店起三个名字。",
        "如果今天是星期三,那么一百天以后是星期几?",
        "这道菜太咸了,下次少放点盐。",
    ),
    "de": (
        "Nenne drei Hauptstädte.",
        "Fasse den folgenden Text zusammen.",
        "Wie spät ist es gerade in Tokio?",
        "Schreibe ein kurzes Gedicht über den Herbst.",
        "Erkläre einem Kind, warum der Himmel blau ist.",
        "Sortiere die folgenden Zahlen aufsteigend: 7, 3, 12, 5, 1.",
        "Welche Vor- und Nachteile hat die Arbeit von zu Hause aus?",
        "Ersetze in diesem Satz alle Substantive durch passende Pronomen.",
        "Die Deutsche Bahn hat heute zwischen Köln und Frankfurt wieder 40 Minuten Verspätung.",
        "Schreibe eine Python-Funktion is_prime(n), die prüft, ob eine Zahl eine Primzahl ist.",
        "Verfasse eine höfliche E-Mail an Frau Schneider, in der du um einen neuen Termin bittest.",
        "Das Update für den Server läuft heute Nacht, danach ist das Dashboard wieder online.",
        "Ist diese Rezension positiv oder negativ? Begründe deine Antwort in einem Satz.",
        "Gib mir ein einfaches Rezept für Kartoffelsuppe mit Würstchen.",
    ),
    "fr": (
        "Cite trois oiseaux.",
        "Résume le texte suivant.",
        "Quelle est la capitale du Canada ?",
        "Écris un court poème sur la pluie d'automne.",
        "Explique à un enfant pourquoi la mer est salée.",
        "Classe ces animaux du plus petit au plus grand : chat, souris, éléphant, chien.",
        "Quels sont les avantages et les inconvénients du télétravail ?",
        "Corrige les fautes d'orthographe dans la phrase ci-dessous.",
        "Marie Curie a reçu le prix Nobel de physique en 1903 avec son mari Pierre.",
        "Écris une fonction JavaScript qui renvoie la somme d'un tableau : sum([1, 2, 3]).",
        "Rédige un courriel poli pour demander un délai supplémentaire de deux jours.",
        "Le meeting de demain est annulé, je t'envoie le nouveau planning par mail ce soir.",
        "Cette critique est-elle positive ou négative ? Réponds en un seul mot.",
        "Propose un menu végétarien pour un dîner de six personnes.",
    ),
    "es": (
        "Nombra tres planetas.",
        "Resume el siguiente texto.",
        "¿Cuál es la capital de Australia?",
        "Escribe un poema corto sobre el mar.",
        "Explica a un niño por qué el cielo es azul.",
        "Ordena estos números de menor a mayor: 8, 3, 15, 1.",
        "¿Qué ventajas y desventajas tiene trabajar desde casa?",
        "Corrige los errores gramaticales de la frase que aparece abajo.",
        "Gabriel García Márquez publicó Cien años de soledad en 1967 en Buenos Aires.",
        "Escribe una consulta SQL que cuente los clientes: SELECT COUNT(*) FROM clientes;",
        "Redacta un correo formal para pedir una cita con el director del banco.",
        "El link del webinar no funciona, mándame otro por WhatsApp antes de las cinco.",
        "¿Esta reseña es positiva o negativa? Contesta con una sola palabra.",
        "Dame una receta fácil de tortilla de patatas para cuatro personas.",
    ),
    "ru": (
        "Назови три цвета.",
        "Кратко перескажи этот текст.",
        "Какая столица у Австралии?",
        "Напиши короткое стихотворение о зиме.",
        "Объясни ребёнку, почему небо голубое.",
        "Расположи числа по возрастанию: 9, 4, 17, 2.",
        "Какие плюсы и минусы у работы из дома?",
        "Исправь ошибки в предложении и объясни каждую из них.",
        "Юрий Гагарин полетел в космос 12 апреля 1961 года с космодрома Байконур.",
        "Напиши функцию на Python, которая переворачивает строку: reverse('abc').",
        "Составь вежливое письмо начальнику с просьбой об отпуске на две недели.",
        "Скинь мне ссылку на Zoom, а то митинг начинается через пять минут.",
        "Этот отзыв положительный или отрицательный? Ответь одним словом.",
        "Придумай простой рецепт пирога с яблоками и корицей.",
    ),
    "ja": (
        "俳句を書いて",
        "次の文章を要約してください。",
        "日本で一番高い山は何ですか?",
        "空が青い理由を子どもに説明してください。",
        "以下の単語を五十音順に並べ替えてください:りんご、みかん、ぶどう。",
        "在宅勤務のメリットとデメリットを三つずつ挙げてください。",
        "カレーライスのレシピを教えて。",
        "田中さんは2015年に東京大学を卒業し、今はAmazonで働いています。",
        "Pythonでリストの平均を計算する関数 mean(xs) を書いてください。",
        "この文の文法の間違いを直してください。",
        "上司に休暇をお願いする丁寧なメールを書いてください。",
        "このレビューは肯定的ですか、それとも否定的ですか。",
        "サーバーのアップデートは今夜行われます。",
        "「ありがとう」を英語、フランス語、ドイツ語に翻訳してください。",
    ),
    "ko": (
        "시를 한 편 써 줘.",
        "다음 글을 요약해 주세요.",
        "대한민국의 수도는 어디입니까?",
        "하늘이 왜 파란지 아이에게 설명해 주세요.",
        "다음 숫자를 작은 것부터 순서대로 나열하세요: 7, 3, 12, 5.",
        "재택근무의 장점과 단점을 세 가지씩 말해 보세요.",
        "김치찌개를 만드는 방법을 단계별로 알려 주세요.",
        "김민수 씨는 2018년에 서울대학교를 졸업하고 지금 Samsung에서 일합니다.",
        "파이썬으로 리스트를 정렬하는 함수 sort_list(xs)를 작성하세요.",
        "아래 문장의 맞춤법 오류를 고쳐 주세요.",
        "상사에게 휴가를 요청하는 공손한 이메일을 작성해 주세요.",
        "이 리뷰는 긍정적인가요, 부정적인가요?",
        "오늘 저녁에 서버 업데이트가 예정되어 있습니다.",
        "부모님께 드릴 선물을 추천해 줘.",
    ),
    "ar": (
        "اكتب قصيدة قصيرة",
        "لخص النص التالي في جملتين.",
        "ما هي عاصمة أستراليا؟",
        "اشرح لطفل لماذا السماء زرقاء.",
        "رتب الأعداد التالية من الأصغر إلى الأكبر: 8، 3، 15، 1.",
        "ما مزايا وعيوب العمل من المنزل؟",
        "صحح الأخطاء النحوية في الجملة التالية.",
        "حصل نجيب محفوظ على جائزة نوبل في الأدب عام 1988.",
        "اكتب دالة بلغة Python تحسب متوسط قائمة من الأرقام: mean(xs).",
        "اكتب رسالة رسمية إلى مدير الشركة تطلب فيها إجازة لمدة أسبوع.",
        "هل هذا التقييم إيجابي أم سلبي؟ أجب بكلمة واحدة.",
        "اقترح ثلاث وصفات صحية يمكن إعدادها في أقل من نصف ساعة.",
        "كيف يمكنني تعلم لغة جديدة بسرعة؟",
        "الطقس اليوم في القاهرة مشمس ودرجة الحرارة 32.",
    ),
    "hi": (
        "एक छोटी कविता लिखिए।",
        "निम्नलिखित अनुच्छेद का सारांश लिखिए।",
        "भारत की राजधानी क्या है?",
        "बच्चे को समझाइए कि आसमान नीला क्यों होता है।",
        "इन संख्याओं को छोटे से बड़े क्रम में लगाइए: 9, 4, 17, 2.",
        "घर से काम करने के तीन फायदे और तीन नुकसान बताइए।",
        "इस वाक्य में व्याकरण की गलतियाँ सुधारिए।",
        "सचिन तेंदुलकर का जन्म 24 अप्रैल 1973 को मुंबई में हुआ था।",
        "Python में एक फंक्शन लिखिए जो सूची का औसत निकाले: mean(xs).",
        "अपने प्रधानाचार्य को छुट्टी के लिए एक आवेदन पत्र लिखिए।",
        "यह समीक्षा सकारात्मक है या नकारात्मक? एक शब्द में उत्तर दीजिए।",
        "आलू के पराठे बनाने की आसान विधि बताइए।",
        "मुझे कल की मीटिंग का link भेज दो, मैं late हो जाऊँगा।",
        "नई भाषा जल्दी सीखने के लिए क्या करना चाहिए?",
    ),
    "pt": (
        "Cite três rios brasileiros.",
        "Resuma o texto a seguir.",
        "Qual é a capital da Austrália?",
        "Escreva um poema curto sobre a saudade.",
        "Explique a uma criança por que o céu é azul.",
        "Coloque estes números em ordem crescente: 8, 3, 15, 1.",
        "Quais são as vantagens e desvantagens de trabalhar em casa?",
        "Corrija os erros gramaticais da frase abaixo.",
        "Fernando Pessoa nasceu em Lisboa em 1888 e morreu na mesma cidade em 1935.",
        "Escreva uma função em Python que inverta uma string: inverter('abc').",
        "Redija um e-mail educado pedindo ao professor mais dois dias de prazo.",
        "O deploy do backend falhou de novo, alguém pode olhar os logs amanhã cedo?",
        "Esta avaliação é positiva ou negativa? Responda com uma única palavra.",
        "Não consigo abrir o arquivo que você me mandou ontem.",
    ),
    "it": (
        "Elenca tre fiori.",
        "Riassumi il testo seguente.",
        "Qual è la capitale della Norvegia?",
        "Scrivi una breve poesia sulla neve.",
        "Spiega a un bambino perché il cielo è blu.",
        "Metti questi numeri in ordine crescente: 8, 3, 15, 1.",
        "Quali sono i vantaggi e gli svantaggi del lavoro da casa?",
        "Correggi gli errori grammaticali nella frase qui sotto.",
        "Umberto Eco pubblicò Il nome della rosa nel 1980 con Bompiani.",
        "Scrivi una funzione Python che calcoli la media di una lista: media([1, 2, 3]).",
        "Scrivi una mail cortese al professor Rossi per spostare l'appuntamento di giovedì.",
        "Il weekend scorso abbiamo fatto un brunch con lo staff e poi shopping in centro.",
        "Questa recensione è positiva o negativa? Rispondi con una sola parola.",
        "Dammi una ricetta semplice per gli gnocchi al pesto.",
    ),
    "vi": (
        "Kể tên ba loài hoa.",
        "Tóm tắt đoạn văn sau đây.",
        "Thủ đô của nước Úc là gì?",
        "Hãy viết một bài thơ ngắn về mùa thu Hà Nội.",
        "Giải thích cho trẻ em vì sao bầu trời có màu xanh.",
        "Sắp xếp các số sau theo thứ tự tăng dần: 8, 3, 15, 1.",
        "Làm việc tại nhà có những ưu điểm và nhược điểm gì?",
        "Sửa lỗi ngữ pháp trong câu dưới đây.",
        "Nguyễn Du là tác giả của Truyện Kiều, tác phẩm nổi tiếng gồm 3254 câu thơ.",
        "Viết một hàm Python tính trung bình của một danh sách: mean(xs).",
        "Viết email lịch sự xin sếp nghỉ phép hai ngày vào tuần sau.",
        "Bài đánh giá này tích cực hay tiêu cực? Trả lời bằng một từ.",
        "Cho tôi công thức nấu phở bò đơn giản cho bốn người ăn.",
        "Nhớ check mail và confirm lịch meeting với khách hàng nhé.",
    ),
    "th": (
        "เขียนกลอนสั้น ๆ",
        "สรุปข้อความต่อไปนี้",
        "เมืองหลวงของประเทศออสเตรเลียคืออะไร",
        "อธิบายให้เด็กฟังว่าทำไมท้องฟ้าจึงเป็นสีฟ้า",
        "เรียงตัวเลขต่อไปนี้จากน้อยไปมาก: 8, 3, 15, 1",
        "การทำงานที่บ้านมีข้อดีและข้อเสียอย่างไร",
        "แก้ไขข้อผิดพลาดทางไวยากรณ์ในประโยคด้านล่าง",
        "สมชายจบการศึกษาจากจุฬาลงกรณ์มหาวิทยาลัยในปี 2560",
        "เขียนฟังก์ชันภาษา Python เพื่อหาค่าเฉลี่ยของรายการ mean(xs)",
        "เขียนอีเมลสุภาพถึงหัวหน้าเพื่อขอลาพักร้อนสองวัน",
        "รีวิวนี้เป็นบวกหรือลบ ตอบด้วยคำเดียว",
        "ขอสูตรทำต้มยำกุ้งแบบง่าย ๆ สำหรับสี่คน",
        "วันนี้อากาศที่กรุงเทพร้อนมาก",
        "ช่วยแนะนำของขวัญวันเกิดให้คุณแม่หน่อย",
    ),
    "tr": (
        "Üç çiçek adı söyle.",
        "Aşağıdaki metni özetle.",
        "Avustralya'nın başkenti neresidir?",
        "Sonbahar hakkında kısa bir şiir yaz.",
        "Bir çocuğa gökyüzünün neden mavi olduğunu açıkla.",
        "Şu sayıları küçükten büyüğe sırala: 8, 3, 15, 1.",
        "Evden çalışmanın avantajları ve dezavantajları nelerdir?",
        "Aşağıdaki cümledeki yazım hatalarını düzelt.",
        "Orhan Pamuk 2006 yılında Nobel Edebiyat Ödülü'nü kazandı.",
        "Python'da bir listenin ortalamasını hesaplayan bir fonksiyon yaz: ortalama([1, 2, 3]).",
        "Müdürünüzden iki gün izin istemek için kibar bir e-posta yazın.",
        "Bu yorum olumlu mu olumsuz mu? Tek kelimeyle cevap ver.",
        "Dört kişilik kolay bir mercimek çorbası tarifi ver.",
        "Yarınki meeting iptal oldu, link'i sonra atarım.",
    ),
    "pl": (
        "Podaj trzy kolory.",
        "Streść poniższy tekst.",
        "Jaka jest stolica Australii?",
        "Napisz krótki wiersz o jesieni.",
        "Wyjaśnij dziecku, dlaczego niebo jest niebieskie.",
        "Ułóż te liczby rosnąco: 8, 3, 15, 1.",
        "Jakie są zalety i wady pracy z domu?",
        "Popraw błędy gramatyczne w poniższym zdaniu.",
        "Maria Skłodowska-Curie urodziła się w Warszawie w 1867 roku.",
        "Napisz funkcję w Pythonie, która oblicza średnią listy: srednia([1, 2, 3]).",
        "Napisz uprzejmy e-mail do szefa z prośbą o dwa dni urlopu.",
        "Czy ta recenzja jest pozytywna, czy negatywna? Odpowiedz jednym słowem.",
        "Podaj prosty przepis na pierogi z kapustą i grzybami.",
        "Zrób update na serwerze i wrzuć nowy build przed deadlinem.",
    ),
    "nl": (
        "Noem drie vogels.",
        "Vat de volgende tekst samen.",
        "Wat is de hoofdstad van Australië?",
        "Schrijf een kort gedicht over de herfst.",
        "Leg aan een kind uit waarom de lucht blauw is.",
        "Zet deze getallen van klein naar groot: 8, 3, 15, 1.",
        "Wat zijn de voor- en nadelen van thuiswerken?",
        "Verbeter de spelfouten in de onderstaande zin.",
        "Vincent van Gogh werd in 1853 geboren in Zundert en schilderde later in Arles.",
        "Schrijf een Python-functie die het gemiddelde van een lijst berekent: gemiddelde([1, 2, 3]).",
        "Schrijf een beleefde e-mail aan mevrouw De Vries om de afspraak te verzetten.",
        "Is deze recensie positief of negatief? Antwoord met één woord.",
        "Geef me een eenvoudig recept voor erwtensoep met rookworst.",
        "De server is down, dus stuur de files maar even via de mail.",
    ),
    "uk": (
        "Назви три кольори.",
        "Стисло перекажи цей текст.",
        "Яка столиця Австралії?",
        "Напиши короткий вірш про осінь.",
        "Поясни дитині, чому небо блакитне.",
        "Розташуй числа за зростанням: 9, 4, 17, 2.",
        "Які переваги та недоліки має робота з дому?",
        "Виправ граматичні помилки в наведеному реченні.",
        "Леся Українка народилася 25 лютого 1871 року в Новограді-Волинському.",
        "Напиши функцію мовою Python, яка обчислює середнє значення списку: mean(xs).",
        "Склади ввічливий лист до керівника з проханням про відпустку.",
        "Цей відгук позитивний чи негативний? Відповідай одним словом.",
        "Запропонуй простий рецепт борщу на чотири порції.",
        "Скинь мені лінк на Zoom, бо зустріч починається за п'ять хвилин.",
    ),
    "id": (
        "Sebutkan tiga buah.",
        "Ringkas teks berikut ini.",
        "Apa ibu kota Australia?",
        "Tulislah puisi pendek tentang hujan.",
        "Jelaskan kepada anak kecil mengapa langit berwarna biru.",
        "Urutkan angka berikut dari yang terkecil: 8, 3, 15, 1.",
        "Apa kelebihan dan kekurangan bekerja dari rumah?",
        "Perbaiki kesalahan tata bahasa dalam kalimat di bawah ini.",
        "Pramoedya Ananta Toer lahir di Blora pada tanggal 6 Februari 1925.",
        "Buatlah fungsi Python yang menghitung rata-rata sebuah daftar: mean(xs).",
        "Tulis surel yang sopan kepada atasan untuk meminta cuti dua hari.",
        "Apakah ulasan ini positif atau negatif? Jawab dengan satu kata.",
        "Berikan resep nasi goreng sederhana untuk empat orang.",
        "Tolong share link meeting besok pagi, jangan lupa ya.",
    ),
    "sv": (
        "Nämn tre blommor.",
        "Sammanfatta följande text.",
        "Vad heter Australiens huvudstad?",
        "Skriv en kort dikt om hösten.",
        "Förklara för ett barn varför himlen är blå.",
        "Ordna talen från minst till störst: 8, 3, 15, 1.",
        "Vilka är för- och nackdelarna med att arbeta hemifrån?",
        "Rätta stavfelen i meningen nedan.",
        "Astrid Lindgren föddes i Vimmerby 1907 och skrev om Pippi Långstrump.",
        "Skriv en Python-funktion som räknar ut medelvärdet av en lista: medel([1, 2, 3]).",
        "Skriv ett artigt mejl till chefen och be om två dagars ledighet.",
        "Är den här recensionen positiv eller negativ? Svara med ett ord.",
        "Ge mig ett enkelt recept på köttbullar med potatismos.",
        "Jag missade mötet, kan du skicka länken till inspelningen i chatten?",
    ),
}

# The frame is in the first language; what it quotes is in others.
QUOTING = (
    ("en", "Translate the sentence 'Ich habe gestern einen alten Freund am Bahnhof getroffen' into English."),
    ("en", "Translate into Spanish: 'The weather is nice today.' -> 'El tiempo está muy bonito hoy en la ciudad.'"),
    ("en", "What does the Chinese proverb 千里之行,始于足下 mean, and when would you use it?"),
    ("en", "Correct the French sentence: Je suis allé au marché hier et j'ai acheté des pommes."),
    ("en", "Write the Russian word 'спасибо' in Latin letters."),
    ("en", 'Explain the idiom "être dans la lune" to a beginner and give an example.'),
    ("de", "Übersetze ins Englische: „The quick brown fox jumps over the lazy dog and runs away.“"),
    ("de", "Was bedeutet der englische Ausdruck 'to kick the bucket'?"),
    ("de", "Übersetze den Satz 'Where is the nearest train station?' ins Deutsche."),
    ("fr", "Traduisez en français la phrase « The children are playing in the garden »."),
    ("fr", "Que signifie l'expression anglaise 'once in a blue moon' ?"),
    ("es", "Traduce al español: 'I would like to book a table for two tonight.'"),
    ("es", "¿Qué significa la palabra alemana «Schadenfreude»?"),
    ("it", "Traduci in italiano la frase 'She sells sea shells by the sea shore'."),
    ("pt", "Traduza para o português: 'All that glitters is not gold.'"),
    ("nl", "Vertaal naar het Nederlands: 'The early bird catches the worm.'"),
    ("sv", "Översätt till svenska: 'My hovercraft is full of eels.'"),
    ("pl", "Przetłumacz na polski: 'Better late than never, my friend.'"),
    ("tr", "Şu cümleyi Türkçeye çevir: 'The book is on the table.'"),
    ("id", "Terjemahkan ke dalam bahasa Indonesia: 'The children are playing outside.'"),
    ("vi", "Dịch câu sau sang tiếng Việt: 'The train leaves at seven in the morning.'"),
    ("ru", "Переведи на русский язык предложение: The committee will publish its report next Monday."),
    ("uk", "Переклади українською: The committee will publish its report next Monday."),
    ("zh", "把这句话翻译成中文:The committee will publish its annual report next Monday morning."),
    ("zh", "用日语怎么说“谢谢”?答案是ありがとうございます。"),
    ("ja", "次の英文を日本語に訳してください:The committee will publish its report next Monday."),
    ("ko", "다음 영어 문장을 한국어로 번역하세요: The committee will publish its report."),
    ("ar", "ترجم الجملة التالية إلى العربية: The committee will publish its report."),
    ("hi", "इस वाक्य का हिन्दी में अनुवाद कीजिए: The committee will publish its report."),
    ("th", "แปลประโยคนี้เป็นภาษาไทย: The committee will publish its report."),
)

# Nothing here says which language it is.
UNTELLING = (
    "",
    "   \n",
    "42",
    "3.14159",
    "12 + 7 * 3 = 33",
    "x^2 + y^2 = r^2",
    "def f(x):\n    return [y ** 2 for y in x if y > 0]",
    "for (int i = 0; i < n; i++) { sum += a[i]; }",
    "SELECT name, COUNT(*) FROM users GROUP BY name;",
    "print('hello')",
    "https://example.org/a/b?c=d",
    "Yes",
    "OK",
    "B",
    "ABC-123",
    "GPT-4",
    "user@example.org",
    "!!!",
    "🙂🙂",
    '{"a": 1, "b": [true, null]}',
    "<div class='x'><p></p></div>",
    "2024-05-17T10:00:00Z",
    "H2O + CO2",
    "\\frac{a}{b} + \\sqrt{c}",
    "E = mc²",
    "α + β = γ",
    "ls -la | grep txt > out.log",
    "import numpy as np\n\nx = np.array([1, 2, 3])\nprint(x.mean())",
    "```python\n# Return the largest number of the list that was given.\nmax(numbers)\n```",
    "SELECT city, AVG(age) FROM people WHERE age > 18 GROUP BY city ORDER BY 2;",
)

ALL = [(language, text) for language, texts in TEXTS.items() for text in texts]


def n_words(language: str, text: str) -> float:
    """Words of a text, reckoned at one and a half characters where they are not separated."""
    return len(tokenize(text, "unicode")) / (1.5 if language in ("zh", "ja", "th") else 1)


def foreign_to(language: str) -> set[str]:
    return set(TEXTS) - {language}


def test_there_are_enough_texts():
    assert len(TEXTS) == 20
    assert len({text for _, text in ALL}) == len(ALL) >= 280


def test_languages_are_identified():
    found = [(language, *identify(text)) for language, text in ALL]
    assert all(0 < confidence <= 1 for *_, confidence in found)
    right = [expected == language for expected, language, _ in found]
    assert sum(right) / len(right) >= 0.98  # 276 of 280 with py3langid 0.4.0


def test_no_right_text_is_rejected():
    long = [(language, text) for language, text in ALL if n_words(language, text) >= 4]
    verdicts = [is_written_in(text, language) for language, text in long]
    assert len(long) > 250
    assert [item for item, verdict in zip(long, verdicts, strict=True) if verdict is False] == []
    assert verdicts.count(True) / len(long) >= 0.97
    assert not [text for language, text in ALL if is_written_in(text, language) is False]


def test_foreign_texts_are_caught():
    pairs = [
        (text, other)
        for language, text in ALL
        if n_words(language, text) >= 6
        for other in sorted(foreign_to(language))
    ]
    verdicts = [is_written_in(text, other) for text, other in pairs]
    assert len(pairs) > 4000
    assert verdicts.count(False) / len(pairs) >= 0.99
    assert [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict] == []


@pytest.mark.parametrize(("language", "text"), QUOTING)
def test_a_text_may_quote_another_language(language, text):
    assert is_written_in(text, language) is not False


def test_the_frame_counts_not_what_it_quotes():
    assert is_written_in(
        "Translate the sentence 'Ich habe gestern einen alten Freund am Bahnhof getroffen' into English.", "en"
    )
    assert is_written_in("Übersetze den Satz 'Where is the nearest train station?' ins Deutsche.", "de")
    long = "Ich habe gestern einen alten Freund getroffen, und wir haben lange über die Schule geredet. " * 2
    assert is_written_in(f"Translate this paragraph into English: {long}", "en")
    assert is_written_in(f"{long}\nTranslate the paragraph above into English.", "en")
    assert is_written_in(f"Translate this paragraph into French: {long}", "fr") is False
    assert is_written_in(f"{long * 5}She said yes. {long * 5}", "en") is False  # a few words are no frame


@pytest.mark.parametrize("text", UNTELLING)
def test_code_figures_and_single_words_tell_nothing(text):
    assert {is_written_in(text, language) for language in TEXTS} == {None}


@pytest.mark.parametrize("text", ["tcp udp icmp http https ftp ssh dns", "asdf qwer zxcv hjkl uiop"])
def test_what_is_no_language_is_not_foreign(text):
    assert {is_written_in(text, language) for language in ("en", "de", "fr", "pl", "vi")} == {None}


def test_text_without_words_has_no_language():
    for text in ("", " ", "42", "x^2 + y^2 = r^2", "!!!", "\N{FIRE}", "https://example.org/a/b?c=d", "aaaa bbbb cccc"):
        assert identify(text) == ("und", 0.0)


def test_marked_code_does_not_hide_the_language_around_it():
    code = "```python\ndef mean(numbers):\n    return sum(numbers) / len(numbers)\n```"
    answer = f"Hier ist die Funktion, die du haben wolltest:\n\n{code}\n\nSie gibt den Mittelwert der Liste zurück."
    assert is_written_in(answer, "de") is True
    assert is_written_in(answer, "en") is False
    assert identify(answer)[0] == "de"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("請用繁體中文回答下面的問題。", "zh"),
        ("请用简体中文回答下面的问题。", "zh"),
        ("次の質問に答えてください。", "ja"),
        ("ｶﾀｶﾅで書いてください", "ja"),
        ("다음 질문에 답해 주세요.", "ko"),
        ("ตอบคำถามต่อไปนี้", "th"),
        ("ענה על השאלות הבאות", "he"),
        ("Απάντησε στις παρακάτω ερωτήσεις", "el"),
        ("নিচের প্রশ্নগুলোর উত্তর দাও", "bn"),
        ("உங்கள் கேள்விகளுக்கு பதில் எழுதவும்", "ta"),
    ],
)
def test_scripts_decide_alone(text, language):
    assert identify(text) == (language, 1.0)
    assert is_written_in(text, language) is True
    assert not any(is_written_in(text, other) for other in foreign_to(language))


def test_scripts_need_no_model():
    code = (
        "import sys; from selfinstruct.languages import identify, is_written_in; "
        "assert is_written_in('请用简体中文回答下面的问题。', 'zh') and identify('ตอบคำถามต่อไปนี้')[0] == 'th'; "
        "assert is_written_in('Answer the following question.', 'ko') is False; print('py3langid' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_kana_tell_japanese_from_chinese():
    chinese = "北京大学附属中学学生运动会开幕典礼"
    assert is_written_in(chinese, "ja") is False
    assert is_written_in("東京都庁舎", "ja") is None  # Japanese titles may lack kana
    assert is_written_in("解释「ありがとう」这个词的意思和用法", "zh") is True
    assert is_written_in("「千里之行,始于足下」の意味を説明してください", "ja") is True


def test_relatives_pass_for_each_other():
    malay = "Sila baca petikan di bawah dan jawab soalan yang berikutnya dengan ayat anda sendiri."
    assert is_written_in(malay, "ms") is True
    assert is_written_in(malay, "id") is not False
    assert is_written_in(malay, "en") is False
    indonesian = "Jelaskan kepada anak kecil mengapa langit berwarna biru."
    assert identify(indonesian)[0] == "ms"
    assert is_written_in(indonesian, "id") is True


def test_tags_may_name_a_region_or_script():
    assert is_written_in("Escreva um poema curto sobre a saudade do mar.", "pt-BR") is True
    assert is_written_in("請用繁體中文寫一封感謝信", "zh_Hant") is True
    assert is_written_in("Write a short poem about the sea at night.", "EN") is True


def test_languages_outside_the_table():
    esperanto = "Bonvolu skribi mallongan poemon pri la maro kaj la steloj dum la nokto."
    assert is_written_in(esperanto, "eo") is True
    assert is_written_in("Write a short poem about the sea and the stars.", "eo") is False
    georgian = "დაწერეთ მოკლე ლექსი ზღვის შესახებ"
    assert identify(georgian)[0] == "ka"
    assert is_written_in(georgian, "ka") is True
    assert is_written_in(georgian, "en") is False
    assert is_written_in(esperanto, "xx") is None  # nothing is known of it


def test_names_for_prompts():
    assert [language_name(code) for code in ("zh", "de", "pt-BR", "zh_Hant")] == [
        "Chinese",
        "German",
        "Portuguese",
        "Chinese",
    ]
    assert language_name("xx") == "xx"
    assert all(language_name(code) != code for code in TEXTS)


@pytest.mark.parametrize(
    "text", ["'a " * 50_000, '"' * 100_000, "`" * 100_000, "<a" * 50_000, "a(" * 50_000, "-" * 99_999, "a" * 100_000]
)
def test_no_text_takes_long(text):
    identify("The model is loaded by now.")
    start = time.process_time()
    is_written_in(text, "en")
    identify(text)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "ab_", "_", "-", "- ", "-a", "<", "<a", "\\a", "a(", "w.", "1", "$", "é", "字_", "http://", "`", '"',
     "“", "„", "«", "「", "『", "'", "'a ", " 'a", "a'b ", "‘"],
)  # fmt: skip
def test_time_grows_with_the_length_of_a_text_and_not_with_its_square(piece, monkeypatch):
    """Whatever part of a text is looked at: here it is all of it."""
    monkeypatch.setattr(languages, "_MAX_CHARACTERS", 10**6)
    identify("The model is loaded by now.")

    def shortest_time(length):
        text = piece * (length // len(piece))
        times = []
        for _ in range(3):
            start = time.process_time()
            is_written_in(text, "en")
            identify(text)
            times.append(time.process_time() - start)
        return min(times)

    # Eight times the text; its square would be 64 times the time.
    assert shortest_time(8_000) < 24 * shortest_time(1_000)


def test_quotations_inside_quotations_leave_the_frame():
    frame = "Übersetze den Satz „{}“ ins Französische und erkläre jedes Wort."
    for quoted in ("He said „good morning“ to us", "We saw ‘the old mill’ there", "Don't say 'never' to me"):
        assert is_written_in(frame.format(quoted), "de") is True


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.sampled_from([*TEXTS, "eo", "xx"]))
def test_any_text_has_an_answer(text, language):
    assert is_written_in(text, language) in (True, False, None)
    code, confidence = identify(text)
    assert code
    assert 0 <= confidence <= 1
